"""Array files with unexpected names, shapes or dtypes are refused."""

import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import npz
from jumprelu.release import members, verify
from tests import small_release
from tests.small_release import FOLDER, change_arrays, reseal


@pytest.fixture(scope='session')
def sound(tmp_path_factory):
  return small_release.write(tmp_path_factory.mktemp('npz') / 'release')


@pytest.fixture
def out(sound, tmp_path):
  return pathlib.Path(shutil.copytree(sound, tmp_path / 'release'))


def refused(out, match):
  """Checks the errors of reading the release and of reading the member."""
  for read in (
      lambda: verify.verify_release(out),
      lambda: members.load_member(out / FOLDER),
  ):
    with pytest.raises(errors.DataError, match=match) as caught:
      read()
    assert '\n' not in str(caught.value)


def test_an_extra_array_is_refused(out):
  change_arrays(out, lambda a: a.update(scaling_factor=np.ones(1, np.float32)))
  refused(out, "unexpected array 'scaling_factor.npy'")


def test_a_missing_array_is_refused(out):
  change_arrays(out, lambda a: a.pop('b_dec'))
  refused(out, "array 'b_dec.npy' is missing")


@pytest.mark.parametrize('dtype', [np.float64, np.float16, '>f4', np.int32])
def test_a_wrong_dtype_is_refused(out, dtype):
  change_arrays(out, lambda a: a.update(b_enc=a['b_enc'].astype(dtype)))
  refused(out, 'params.npz: b_enc is .*expected float32')


def test_a_wrong_shape_is_refused(out):
  change_arrays(out, lambda a: a.update(W_enc=a['W_enc'].T.copy()))
  refused(out, r'W_enc has shape \[12, 8\], expected \[8, 12\]')


class _Trap:

  def __reduce__(self):
    return (os.mkdir, ('unpickled',))


def test_a_pickle_is_never_loaded(out, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = out / FOLDER / 'params.npz'
  with np.load(path) as stored:
    arrays = {k: stored[k] for k in stored.files}
  arrays['b_enc'] = np.array([_Trap()] * 12, dtype=object)
  np.savez(path, allow_pickle=True, **arrays)
  reseal(out)
  refused(out, 'b_enc is object, expected float32')
  assert not (tmp_path / 'unpickled').exists()


def test_a_header_with_terabytes_is_refused_before_allocation(out):
  path = out / FOLDER / 'params.npz'
  with zipfile.ZipFile(path) as archive:
    files = {i.filename: archive.read(i) for i in archive.infolist()}
  header = files['b_enc.npy']
  forged = header.replace(b'(12,)', b'(1099511627776,)', 1)
  # Without 11 of the padding spaces, the header has its old length.
  forged = forged.replace(b' ' * 11, b'', 1)
  assert len(forged) == len(header)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in files.items():
      archive.writestr(name, forged if name == 'b_enc.npy' else data)
  reseal(out)
  refused(out, r'b_enc has shape \[1099511627776\], expected \[12\]')


@pytest.mark.parametrize('size', [0, 10, 700, -1])
def test_a_truncated_file_is_refused(out, size):
  path = out / FOLDER / 'params.npz'
  data = path.read_bytes()
  path.write_bytes(data[:size])
  refused(out, 'params.npz: damaged or truncated')


def test_an_array_that_is_stored_twice_is_refused(out):
  path = out / FOLDER / 'params.npz'
  with zipfile.ZipFile(path) as archive:
    data = archive.read('b_enc.npy')
  with zipfile.ZipFile(path, 'a') as archive, pytest.warns(UserWarning):
    archive.writestr('b_enc.npy', data)
  reseal(out)
  refused(out, 'holds an array twice')


def test_token_ids_must_be_integers_with_two_axes(tmp_path):
  path = tmp_path / 'ids.npy'
  np.save(path, np.zeros((2, 3), np.int32))
  assert npz.read_npy(path, ndim=2, kinds='iu').shape == (2, 3)
  for wrong in (np.zeros(3, np.int32), np.zeros((2, 3), np.float32)):
    np.save(path, wrong)
    with pytest.raises(errors.DataError, match='ids.npy: holds'):
      npz.read_npy(path, ndim=2, kinds='iu')
  np.save(path, np.array([[_Trap()]]), allow_pickle=True)
  with pytest.raises(errors.DataError, match='holds object'):
    npz.read_npy(path, ndim=2, kinds='iu')


def test_a_truncated_or_missing_array_file_is_refused(tmp_path):
  path = tmp_path / 'ids.npy'
  np.save(path, np.zeros((20, 30), np.int32))
  data = path.read_bytes()
  for size in (0, 5, 100, 500):
    path.write_bytes(data[:size])
    with pytest.raises(errors.DataError, match='ids.npy'):
      npz.read_npy(path, ndim=2, kinds='iu')
  with pytest.raises(errors.MissingInputError, match='no such file'):
    npz.read_npy(tmp_path / 'none.npy', ndim=2, kinds='iu')


def test_a_damaged_compressed_array_is_named(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, a=np.arange(4096, dtype=np.float32))
  data = bytearray(path.read_bytes())
  start = data.find(b'.npy') + 40
  for i in range(start, start + 600):
    data[i] ^= 0xFF
  path.write_bytes(bytes(data))
  with pytest.raises(errors.DataError, match=r'a\.npz'):
    npz.read_npz(path, {'a': (4096,)})


def _rewritten(path, entry):
  """Returns an archive whose array `a` has these bytes."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a.npy', entry)
  return path


def _refused(path):
  for read in (
      lambda: npz.read_npz(path, {'a': (3,)}),
      lambda: npz.header(path),
  ):
    with pytest.raises(errors.DataError, match=r'a\.npz') as caught:
      read()
    assert '\n' not in str(caught.value)


def _header(text, *, length=None):
  size = (len(text) if length is None else length).to_bytes(4, 'little')
  return b'\x93NUMPY\x02\x00' + size + text


@pytest.mark.parametrize(
    'entry',
    [
        _header(b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((, }\n"),
        _header(b'[' * 5000 + b'\n'),
        _header(b'{}\n', length=2**32 - 1),
    ],
)
def test_a_header_that_is_no_description_is_refused(tmp_path, entry):
  _refused(_rewritten(tmp_path / 'a.npz', entry))


def test_a_long_header_is_refused_before_it_is_read(tmp_path, monkeypatch):
  sizes = []
  read = zipfile.ZipExtFile.read
  monkeypatch.setattr(
      zipfile.ZipExtFile,
      'read',
      lambda self, n=-1: sizes.append(n) or read(self, n),
  )
  entry = _header(bytes(10**6), length=10**6)
  _refused(_rewritten(tmp_path / 'a.npz', entry))
  assert max(sizes) < 10**5


def test_damage_to_the_archive_s_index_is_one_line(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, a=np.arange(3, dtype=np.float32))
  data = path.read_bytes()
  refused = 0
  # The last 22 bytes hold the place and the size of the list of entries. In the
  # list, each entry has flags, a kind of compression and a place.
  for at in range(data.index(b'PK\x01\x02'), len(data)):
    for value in (0, 1, 0x7F, 0xFF):
      path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
      try:
        npz.read_npz(path, {'a': (3,)})
      except errors.DataError as error:
        refused += 1
        assert '\n' not in str(error)
  assert refused > 100
