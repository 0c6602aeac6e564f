"""Containers hold arrays that another decoder reads."""

import base64
import gzip

import numpy as np
import pytest

from jumprelu.explore import container
from tests.explore.conftest import unpack


def test_arrays_and_json_are_read_back():
  arrays = {
      'a': np.arange(-3, 4, dtype=np.int8),
      'b': np.arange(6, dtype=np.uint16).reshape(2, 3),
      'empty': np.zeros((0, 4), np.float32),
      'c': np.array([1.5, np.nan, np.inf], np.float32),
      'big endian': np.array([1, 2**20], '>i4'),
      'text': ['</script>', '\0', 'é', '😀'],
  }
  read = unpack(container.pack(arrays))
  assert list(read) == list(arrays)
  for name, value in arrays.items():
    if isinstance(value, np.ndarray):
      np.testing.assert_array_equal(read[name], value)
      assert read[name].shape == value.shape
    else:
      assert read[name] == value


def test_types_that_the_script_does_not_read_are_refused():
  with pytest.raises(ValueError, match='x: .*float64'):
    container.pack({'x': np.zeros(3)})


def test_equal_containers_are_equal_texts():
  packed = container.pack({'x': np.arange(1000, dtype=np.int32)})
  assert container.encode(packed) == container.encode(packed)
  text = container.encode(packed)
  assert gzip.decompress(base64.b64decode(text)) == packed


def test_rounding_keeps_twelve_bits_and_special_values():
  rng = np.random.default_rng(0)
  values = np.exp(rng.uniform(-80, 80, 10_000)).astype(np.float32)
  rounded = container.rounded(np.append(values, [0, np.inf, np.nan]))
  np.testing.assert_allclose(rounded[:-3], values, rtol=2.0**-12)
  assert not (rounded.view(np.uint32) & 0xFFF)[:-3].any()
  assert rounded[-3] == 0 and np.isinf(rounded[-2]) and np.isnan(rounded[-1])
