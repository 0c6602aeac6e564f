"""Files of torch: tensors are read, and nothing else in them is run."""

import collections
import io
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import torch_zip

ARRAYS = {
    'W_enc': np.arange(12, dtype=np.float32).reshape(3, 4),
    'k': np.asarray(5, np.int32),
    'half': np.linspace(0, 1, 5).astype(np.float16),
    'brain': np.linspace(0, 1, 4).astype(ml_dtypes.bfloat16),
    'empty': np.zeros((0, 3), np.float64),
}


def save(path, data, storages=(), *, compression=zipfile.ZIP_STORED):
  """Writes an archive with this pickle and these storages."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', data)
    for number, storage in enumerate(storages):
      archive.writestr(f'archive/data/{number}', storage)
  return path


class FloatStorage:
  """Pickled as the global `torch FloatStorage`."""


class TorchPickler(pickle._Pickler):
  """Pickles tensors as torch does: protocol 2, storages by persistent id."""

  def persistent_id(self, obj):
    if isinstance(obj, Storage):
      return ('storage', FloatStorage, '0', 'cpu', obj.size)
    return None

  def save_global(self, obj, name=None):
    names = {FloatStorage: 'torch\nFloatStorage', rebuild: REBUILD}
    if obj in names:
      self.write(pickle.GLOBAL + f'{names[obj]}\n'.encode())
      self.memoize(obj)
    else:
      super().save_global(obj, name)

  dispatch = pickle._Pickler.dispatch | {
      type: save_global,
      type(lambda: 0): save_global,
  }


REBUILD = 'torch._utils\n_rebuild_tensor_v2'


class Storage:

  def __init__(self, size):
    self.size = size


def rebuild(*args):
  raise AssertionError('called by the reader')


class Tensor:

  def __init__(self, size, offset, shape, strides):
    self.args = Storage(size), offset, shape, strides, False, {}

  def __reduce__(self):
    return rebuild, self.args


def torch_pickle_of(value):
  """Returns a pickle as torch writes it, with memo entries and an `_metadata`."""
  out = io.BytesIO()
  TorchPickler(out, protocol=2).dump(value)
  return out.getvalue()


def test_written_arrays_are_read_again_and_files_are_equal(tmp_path):
  torch_zip.write(tmp_path / 'a.pt', ARRAYS)
  torch_zip.write(tmp_path / 'b.pt', ARRAYS)
  assert (tmp_path / 'a.pt').read_bytes() == (tmp_path / 'b.pt').read_bytes()
  read = torch_zip.read(tmp_path / 'a.pt')
  assert list(read) == list(ARRAYS)
  for name, array in ARRAYS.items():
    assert read[name].dtype == array.dtype
    np.testing.assert_array_equal(read[name], array)


def test_a_transposed_view_is_read_by_its_strides_and_offset(tmp_path):
  values = np.arange(7, dtype=np.float32)
  state = collections.OrderedDict(W=Tensor(7, 1, (3, 2), (1, 3)))
  state._metadata = {'': {'version': 1}}
  path = save(tmp_path / 'a.pt', torch_pickle_of(state), [values.tobytes()])
  wanted = values[1:].reshape(2, 3).T
  np.testing.assert_array_equal(torch_zip.read(path)['W'], wanted)


@pytest.mark.parametrize(
    'size, offset, shape, strides',
    [
        (4, 0, (5,), (1,)),
        (4, 2, (3,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, -1, (2,), (1,)),
        (4, 0, (2,), (-1,)),
        (4, 0, (1000, 1000), (0, 0)),
        (4, 0, (2,), (1, 1)),
        (9, 0, (4,), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    tmp_path, size, offset, shape, strides
):
  data = torch_pickle_of({'W': Tensor(size, offset, shape, strides)})
  path = save(tmp_path / 'a.pt', data, [bytes(16)])
  with pytest.raises(errors.DataError, match='a.pt: not a dict of tensors'):
    torch_zip.read(path)


class Hostile:
  """Creates a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, protocol):
  mark = tmp_path / 'mark'
  data = pickle.dumps({'W_enc': Hostile(mark)}, protocol=protocol)
  path = save(tmp_path / 'ae.pt', data)
  with pytest.raises(errors.DataError, match='nothing in it was run') as caught:
    torch_zip.read(path)
  assert '\n' not in str(caught.value)
  assert not mark.exists()
  # The same bytes do run code in an unpickler.
  pickle.loads(data)['W_enc'].close()
  assert mark.exists()


@pytest.mark.parametrize(
    'data, reason',
    [
        (b'\x80\x02cos\nsystem\n.', 'global os system'),
        (b'\x80\x02ctorch\nload\n)R.', 'global torch load'),
        (b'\x80\x02ccollections\nOrderedDict\n(tb.', 'attributes of'),
        (b'\x80\x02}(K\x01K\x02u.', 'key that is no text'),
        (b'\x80\x02}X\x01\x00\x00\x00aK\x01s.', 'is no tensor'),
        (b'\x80\x02' + b'(' * 9, 'damaged'),
        (b'\x80\x02t.', 'damaged'),
        (b'\x80\x02K\x01.', 'contains no dict'),
        (b'\x80\x02K\x01K\x02R.', 'a call of'),
        (b'\x80\x02X\xff\xff\xff\x7fa.', 'damaged'),
        (b'', 'damaged'),
    ],
)
def test_other_pickles_are_refused_in_one_line(tmp_path, data, reason):
  path = save(tmp_path / 'ae.pt', data)
  with pytest.raises(errors.DataError, match=reason) as caught:
    torch_zip.read(path)
  assert '\n' not in str(caught.value)


def test_deeply_nested_tuples_are_refused(tmp_path):
  nested = b')' + b'\x85' * 20_000
  path = save(tmp_path / 'ae.pt', b'\x80\x02}' + nested + b'K\x01s.')
  with pytest.raises(errors.DataError, match='key that is no text'):
    torch_zip.read(path)


def test_a_compressed_entry_is_refused(tmp_path):
  data = torch_pickle_of({'W': Tensor(4, 0, (4,), (1,))})
  path = save(
      tmp_path / 'a.pt', data, [bytes(16)], compression=zipfile.ZIP_DEFLATED
  )
  with pytest.raises(errors.DataError, match='is compressed'):
    torch_zip.read(path)


def test_tensors_much_larger_than_the_file_are_refused(tmp_path):
  tensor = Tensor(1000, 0, (1000,), (1,))
  state = {f'W{i}': tensor for i in range(200)}
  path = save(tmp_path / 'a.pt', torch_pickle_of(state), [bytes(4000)])
  with pytest.raises(errors.DataError, match='larger than the file'):
    torch_zip.read(path)


def test_other_files_are_named(tmp_path):
  with pytest.raises(errors.MissingInputError, match='a.pt: no such file'):
    torch_zip.read(tmp_path / 'a.pt')
  (tmp_path / 'b.pt').write_bytes(pickle.dumps(119547037146038801333356))
  with pytest.raises(errors.DataError, match='written before torch 1.6'):
    torch_zip.read(tmp_path / 'b.pt')


def test_damage_to_the_places_of_entries_is_one_line(tmp_path):
  path = tmp_path / 'ae.pt'
  torch_zip.write(path, ARRAYS)
  data = path.read_bytes()
  refused = 0
  for at in range(data.index(b'PK\x01\x02'), len(data)):
    path.write_bytes(data[:at] + b'\xff' + data[at + 1 :])
    try:
      torch_zip.read(path)
    except errors.DataError as error:
      refused += 1
      assert '\n' not in str(error)
  assert refused > 100
