"""GGUF files are read as the gguf package does; damaged ones are refused."""

import struct
import tracemalloc

import gguf
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import gguf_file, gguf_header
from tests.lm import gguf_files, huggingface_folders

Type = gguf_files.Type
TYPES = (
    Type.F32,
    Type.F16,
    Type.BF16,
    Type.Q8_0,
    Type.Q4_0,
    Type.Q4_K,
    Type.Q5_0,
    Type.Q5_K,
    Type.Q6_K,
)
_STRING, _ARRAY = 8, 9
_HUGE = 2**63


def small():
  """Returns a draft without a tokenizer, whose header has about 3 kB."""
  draft = gguf_files.draft(huggingface_folders.CONFIGS['2b'])
  draft.metadata = gguf_files.metadata(huggingface_folders.CONFIGS['2b'])
  return draft


def refused(path, raw, match=None):
  """Checks that reading fails in one line, and allocates little."""
  path.write_bytes(raw)
  tracemalloc.start()
  try:
    with pytest.raises(errors.DataError, match=match) as caught:
      gguf_file.GgufFile(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()
  text = str(caught.value)
  assert '\n' not in text and text.startswith(f'{path}: ')
  assert ';' in text  # The cure.


@pytest.mark.parametrize('kind', TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize('chunk', [2**22, 700])
def test_values_equal_those_of_the_gguf_package(
    tmp_path, monkeypatch, kind, chunk
):
  monkeypatch.setattr(gguf_file, '_CHUNK', chunk)
  values = np.random.RandomState(0).normal(size=(3, 5, 512))
  raw = gguf_files.stored(values, kind)
  other = gguf_files.stored(values[0, :1, :256] + 1, kind)
  tensors = {
      'other': gguf_files.Tensor((256, 1), kind, other.tobytes()),
      'values': gguf_files.Tensor((512, 5, 3), kind, raw.tobytes()),
  }
  path = gguf_files.Draft({}, tensors).write(tmp_path / 'a.gguf')
  file = gguf_file.GgufFile(path)
  actual = file.tensor('values')
  assert actual.shape == (3, 5, 512) and actual.dtype == np.float32
  wanted = gguf.dequantize(raw.reshape(15, -1), kind).reshape(3, 5, 512)
  np.testing.assert_array_equal(actual, wanted)
  assert np.unique(wanted).size > 20
  if kind == Type.F32:
    np.testing.assert_array_equal(actual, values.astype(np.float32))
  np.testing.assert_array_equal(
      file.tensor('other'), gguf.dequantize(other, kind)
  )


def test_all_types_of_the_table_are_tested():
  assert gguf_header.type_names() == sorted(kind.name for kind in TYPES)


def test_a_file_of_the_packages_writer_is_read(tmp_path):
  writer = gguf.GGUFWriter(tmp_path / 'a.gguf', 'gemma2')
  writer.add_custom_alignment(64)
  numbers = {
      'uint8': 200, 'int8': -7, 'uint16': 60_000, 'int16': -300,
      'uint32': 4_000_000_000, 'int32': -5, 'uint64': 2**63, 'int64': -(2**40),
      'float32': 0.5, 'float64': 0.1,
  }  # fmt: skip
  for name, value in numbers.items():
    getattr(writer, f'add_{name}')(f'x.{name}', value)
  writer.add_bool('x.bool', True)
  writer.add_string('x.string', 'é\n')
  writer.add_array('x.strings', ['', 'a', '漢'])
  writer.add_array('x.whole', [3, -1])
  rng = np.random.RandomState(0)
  tensors = {
      'a': rng.normal(size=(3, 4)).astype(np.float32),
      'b': rng.normal(size=7).astype(np.float16),
  }
  for name, values in tensors.items():
    writer.add_tensor(name, values)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  file = gguf_file.GgufFile(tmp_path / 'a.gguf')
  for name, value in numbers.items():
    assert file.metadata[f'x.{name}'] == value
  assert file.metadata['x.bool'] is True
  assert file.metadata['x.string'] == 'é\n'
  assert file.strings('x.strings') == ['', 'a', '漢']
  assert list(file.numbers('x.whole')) == [3, -1]
  assert file.strings('x.none') is None and file.numbers('x.none') is None
  assert file.tensors.keys() == tensors.keys()
  for name, values in tensors.items():
    np.testing.assert_array_equal(file.tensor(name), values)


def test_the_package_reads_the_files_of_these_tests(tmp_path):
  config = huggingface_folders.CONFIGS['9b'] | {'vocab_size': 4096}
  path = gguf_files.write(tmp_path / 'a.gguf', config, Type.F16)
  ours, theirs = gguf_file.GgufFile(path), gguf.GGUFReader(path)
  assert len(ours.tensors) == len(theirs.tensors) == 11 * 3 + 2
  for tensor in theirs.tensors:
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(ours.tensor(tensor.name), values)
  field = theirs.get_field('tokenizer.ggml.tokens')
  assert field is not None
  assert ours.strings('tokenizer.ggml.tokens') == field.contents()


def test_a_file_truncated_anywhere_is_refused(tmp_path):
  draft = small()
  raw, size = draft.bytes(), len(draft.header())
  assert 2000 < size < 4000
  gguf_file.GgufFile(draft.write(tmp_path / 'whole.gguf'))
  lengths = [*range(0, size, 7), size, (size + len(raw)) // 2, len(raw) - 1]
  for length in lengths:
    refused(tmp_path / 'part.gguf', raw[:length])


def test_no_changed_byte_of_a_header_raises_another_error(tmp_path):
  draft = small()
  raw, size = draft.bytes(), len(draft.header())
  rng = np.random.RandomState(0)
  refusals = 0
  for _ in range(600):
    damaged = bytearray(raw)
    damaged[rng.randint(size)] = rng.randint(256)
    path = tmp_path / 'a.gguf'
    path.write_bytes(damaged)
    try:
      file = gguf_file.GgufFile(path)
      file.tensor(list(file.tensors)[rng.randint(len(file.tensors))])
    except errors.DataError as e:
      assert '\n' not in str(e)
      refusals += 1
  assert 50 < refusals < 550


def _metadata(*entries):
  """Returns raw entries of metadata: (key, type, bytes)."""
  return b''.join(
      gguf_files.string(key) + struct.pack('<I', kind) + value
      for key, kind, value in entries
  )


def _table(name=b'a', dims=(4,), kind=0, offset=0, axes=None):
  """Returns a raw entry of the table of tensors."""
  return (
      gguf_files.string(name)
      + struct.pack('<I', len(dims) if axes is None else axes)
      + struct.pack(f'<{len(dims)}Q', *dims)
      + struct.pack('<IQ', kind, offset)
  )


def _file(entries=(), tables=(), *, counts=None, size=256, version=3):
  """Returns the bytes of a file of raw entries and `size` bytes of values."""
  if counts is None:
    counts = len(tables), len(entries)
  header = struct.pack('<4sIQQ', b'GGUF', version, *counts)
  header += _metadata(*entries) + b''.join(tables)
  return header + bytes(-len(header) % 32) + bytes(size)


_U64_HUGE = struct.pack('<Q', _HUGE)
_DAMAGED = {
    'empty': (b'', "it begins with b''"),
    'zip': (b'PK\3\4' + bytes(99), 'not a GGUF file'),
    'version 1': (_file(version=1), 'is of version 1, wanted'),
    'version 99': (_file(version=99), 'is of version 99, wanted'),
    'big endian': (_file(version=3 << 24), 'is big-endian, wanted a little'),
    'count of tensors': (_file(counts=(_HUGE, 0)), 'count of tensors is 9,223'),
    'count of metadata': (_file(counts=(0, _HUGE)), 'count of metadata is 9,2'),
    'more tensors than bytes': (_file(counts=(20, 0)), 'at most 8'),
    'length of a key': (
        _file(counts=(0, 1))[:24] + _U64_HUGE + bytes(99),
        'name of metadata entry 0 has 9,223,372,036,854,775,808 bytes',
    ),
    'key longer than the file': (
        _file(counts=(0, 1))[:24] + struct.pack('<Q', 5000) + bytes(99),
        'needs 5,000 bytes, but 99 bytes are left',
    ),
    'key of other bytes': (_file([(b'\xff', 0, b'a')]), 'is not UTF-8'),
    'length of a string': (
        _file([('s', _STRING, _U64_HUGE)]),
        "'s' has 9,223,372,036,854,775,808 bytes",
    ),
    'string of a megabyte': (
        _file([('s', _STRING, struct.pack('<Q', 2**20 + 1))], size=2**21),
        "'s' has 1,048,577 bytes, wanted up to 1,048,576",
    ),
    'type of an entry': (_file([('s', 13, b'abcd')]), 'an unknown type, 13'),
    'array of a huge count': (
        _file([('s', _ARRAY, struct.pack('<IQ', 6, _HUGE))]),
        "'s' needs 36,893,488,147,419,103,232 bytes",
    ),
    'array of huge strings': (
        _file([('s', _ARRAY, struct.pack('<IQQ', _STRING, 1, _HUGE))]),
        "'s' needs 9,223,372,036,854,775,808 bytes",
    ),
    'array of many strings': (
        _file([('s', _ARRAY, struct.pack('<IQ', _STRING, _HUGE))]),
        "'s' needs 73,786,976,294,838,206,464 bytes",
    ),
    'nested arrays': (
        _file([('s', _ARRAY, struct.pack('<IQIQ', _ARRAY, 1, 0, 1))]),
        'array of an unknown type, 9',
    ),
    'two equal keys': (
        _file([('s', 0, b'a'), ('s', 0, b'b')]),
        "'s' is listed twice",
    ),
    'alignment 0': (
        _file([('general.alignment', 4, bytes(4))]),
        'general.alignment is 0, wanted a power of two',
    ),
    'alignment 24': (
        _file([('general.alignment', 4, struct.pack('<I', 24))]),
        'general.alignment is 24',
    ),
    'alignment of 4 GB': (
        _file([('general.alignment', 4, struct.pack('<I', 2**31))]),
        'general.alignment is 2147483648',
    ),
    'alignment of a string': (
        _file([('general.alignment', _STRING, gguf_files.string('32'))]),
        "general.alignment is '32'",
    ),
    'no dimensions': (_file(tables=[_table(dims=())]), 'has 0 dimensions'),
    'many dimensions': (
        _file(tables=[_table(axes=2**32 - 1)]),
        'has 4,294,967,295 dimensions, wanted 1 to 4',
    ),
    'dimension 0': (_file(tables=[_table(dims=(4, 0))]), r'shape \(0, 4\)'),
    'dimensions beyond 64 bits': (
        _file(tables=[_table(dims=(2**40, 2**40))]),
        'needs 4,835,703,278,458,516,698,824,704 bytes',
    ),
    'a dimension of -1': (
        _file(tables=[_table(dims=(2**64 - 1,))]),
        'needs 73,786,976,294,838,206,460 bytes',
    ),
    'rows of a part of a block': (
        _file(tables=[_table(dims=(48, 2), kind=8)]),
        r'has shape \(2, 48\), wanted rows of a multiple of 32 values \(Q8_0\)',
    ),
    'unknown type': (
        _file(tables=[_table(kind=99)]),
        'is of type 99, wanted BF16, F16, F32, Q4_0',
    ),
    'offset outside': (
        _file(tables=[_table(offset=2**40)]),
        "tensor 'a' needs bytes 1,099,511,627,840 to",
    ),
    'offset of -32': (
        _file(tables=[_table(offset=2**64 - 32)]),
        "tensor 'a' needs bytes 18,446,744,073,709,551,648 to",
    ),
    'offset not aligned': (
        _file(tables=[_table(offset=8)]),
        "the offset of tensor 'a', 8, is not a multiple of 32",
    ),
    'overlap': (
        _file(tables=[_table(dims=(32,)), _table(b'b', offset=32)]),
        "tensors 'a' and 'b' overlap",
    ),
    'two equal names': (
        _file(tables=[_table(), _table(offset=32)]),
        "tensor 'a' is listed twice",
    ),
    'a name with a line break': (
        _file(tables=[_table(b'a\nb', kind=99)]),
        r"tensor 'a\\nb' is of type 99",
    ),
}


@pytest.mark.parametrize('name', _DAMAGED)
def test_a_damaged_header_is_refused_in_one_line(tmp_path, name):
  raw, match = _DAMAGED[name]
  refused(tmp_path / 'a.gguf', raw, match)


def test_entries_like_those_of_the_damaged_files_are_accepted(tmp_path):
  entries = [('s', _STRING, gguf_files.string('x')), ('n', 0, b'\3')]
  tables = [_table(dims=(32,)), _table(b'b', offset=128)]
  (tmp_path / 'a.gguf').write_bytes(_file(entries, tables))
  file = gguf_file.GgufFile(tmp_path / 'a.gguf')
  assert file.metadata == {'s': 'x', 'n': 3}
  assert list(file.tensors) == ['a', 'b']


def test_non_finite_values_are_refused(tmp_path):
  for value in (np.nan, np.inf):
    raw = np.asarray([1, value], np.float16).tobytes()
    draft = gguf_files.Draft({}, {'a': gguf_files.Tensor((2,), 1, raw)})
    file = gguf_file.GgufFile(draft.write(tmp_path / 'a.gguf'))
    with pytest.raises(errors.DataError, match='tensor a has non-finite val'):
      file.tensor('a')


def test_a_file_that_shrinks_after_its_header_was_read_is_refused(tmp_path):
  draft = small()
  draft.metadata |= {'s': (_ARRAY, (_STRING, ['a', 'b']))}
  path = draft.write(tmp_path / 'a.gguf')
  file = gguf_file.GgufFile(path)
  path.write_bytes(path.read_bytes()[:64])
  with pytest.raises(errors.DataError, match='token_embd.weight ends early'):
    file.tensor('token_embd.weight')
  with pytest.raises(errors.DataError, match='ends in its metadata'):
    file.strings('s')


def test_an_array_of_another_type_is_refused(tmp_path):
  draft = small()
  draft.metadata |= {
      's': (_ARRAY, (_STRING, ['a'])),
      'n': (_ARRAY, (4, [1])),
      'x': (4, 1),
  }
  file = gguf_file.GgufFile(draft.write(tmp_path / 'a.gguf'))
  for key in ('n', 'x'):
    with pytest.raises(errors.DataError, match=f'{key} is not an array of str'):
      file.strings(key)
  for key in ('s', 'x'):
    with pytest.raises(errors.DataError, match=f'{key} is not an array of num'):
      file.numbers(key)


def test_a_missing_file_is_missing_input(tmp_path):
  with pytest.raises(errors.MissingInputError, match='none.gguf: no such file'):
    gguf_file.GgufFile(tmp_path / 'none.gguf')
  with pytest.raises(errors.DataError, match='not readable: Is a directory'):
    gguf_file.GgufFile(tmp_path)
