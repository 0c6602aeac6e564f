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


def npy(header, version=1, size=0):
  length = len(header).to_bytes(2 if version == 1 else 4, 'little')
  return b'\x93NUMPY' + bytes([version, 0]) + length + header + b'\0' * size


def write_zip(path, data, method=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr('a.npy', data)


@pytest.mark.parametrize(
    'header',
    [
        b'((((',
        b"{'descr': '<f4', 'shape': ((((",
        b'(' * 9000,
        b'-' * 9000,
        b'x',
    ],
)
def test_a_header_that_is_no_python_is_named(tmp_path, header):
  path = tmp_path / 'a.npz'
  write_zip(path, npy(header))
  with pytest.raises(errors.DataError, match=r'a\.npz: a: not a NumPy array'):
    npz.header(path)


def test_a_long_header_is_refused_before_it_is_read(tmp_path, monkeypatch):
  path = tmp_path / 'a.npz'
  write_zip(path, npy(b' ' * 2**20, version=2))
  sizes = []
  read = zipfile.ZipExtFile.read

  def record(self, n=-1):
    sizes.append(n)
    return read(self, n)

  monkeypatch.setattr(zipfile.ZipExtFile, 'read', record)
  with pytest.raises(errors.DataError, match='a header of 1048576 bytes'):
    npz.header(path)
  assert 0 < max(sizes) < 10_000 and min(sizes) > 0


def test_arrays_much_larger_than_their_file_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, a=np.zeros(2**25, np.float32))
  with pytest.raises(errors.DataError, match='claims 134,217,.* bytes of'):
    npz.read_npz(path, {'a': (2**25,)})
  # Small arrays may be all zeros.
  np.savez_compressed(path, a=np.zeros(2**20, np.float32))
  assert not npz.read_npz(path, {'a': (2**20,)})['a'].any()


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_numpy_does_not_write_is_refused(tmp_path, method):
  path = tmp_path / 'a.npz'
  np.savez(path, a=np.zeros(3, np.float32))
  with zipfile.ZipFile(path) as archive:
    data = archive.read('a.npy')
  write_zip(path, data, method)
  with pytest.raises(errors.DataError, match='another method than deflate'):
    npz.header(path)


@pytest.mark.parametrize('compressed', [False, True])
def test_a_changed_byte_of_a_file_is_refused_or_has_no_effect(
    tmp_path, compressed
):
  path = tmp_path / 'a.npz'
  value = np.arange(30, dtype=np.float32)
  (np.savez_compressed if compressed else np.savez)(path, a=value)
  sound, refused_ = path.read_bytes(), 0
  for position in range(len(sound)):
    data = bytearray(sound)
    data[position] ^= 0xFF
    path.write_bytes(data)
    try:
      np.testing.assert_array_equal(
          npz.read_npz(path, {'a': (30,)})['a'], value
      )
    except errors.DataError as error:
      refused_ += 1
      assert 'a.npz' in str(error) and '\n' not in str(error)
  assert refused_ > len(sound) / 3
