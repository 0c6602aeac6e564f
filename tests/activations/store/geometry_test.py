"""Files and chunks: as large as asked for, and cut where they must be."""

import math

import pytest

from jumprelu.activations.store import geometry

# Gemma 2 2B's residual stream in the `paper` recipe's blocks.
PAPER = {'block_positions': 2**20, 'batch': 4096, 'shards': 256}


def make(**changes):
  fields = {'blocks': 3, **PAPER, **changes}
  return geometry.make_geometry({'resid_post': 2304}, 'bfloat16', **fields)


def test_a_file_holds_whole_shards_of_one_block_and_is_not_too_large():
  found = make()
  assert found.file_shape('resid_post') == (256, 8, 16, 2304)
  assert 2**27 < found.file_bytes('resid_post') <= 2**28 + 2**16
  chunk = found.chunk_shape('resid_post')
  assert 2**20 < 2 * math.prod(chunk) <= 2**21
  assert math.prod(found.array_shape('resid_post')) == 3 * 2**20 * 2304
  # Two bytes a number and one a keep bit, and little more.
  data = 2**20 * (2 * 2304 + 1)
  assert data < found.block_bytes() < 1.001 * data


@pytest.mark.parametrize('data_axis', [1, 16, 64, 256])
def test_no_file_spans_two_parts_of_the_data_axis(data_axis):
  found = make(data_axis=data_axis)
  assert found.parts % data_axis == 0
  assert found.parts == max(32, data_axis)


def test_what_cannot_be_cut_further_is_one_shard_and_one_batch():
  found = make(file_bytes=1, chunk_bytes=1)
  assert found.file_shape('keep') == (256, 1, 16)
  assert found.chunk_shape('keep') == (1, 1, 16)


def test_it_reads_back_as_itself():
  assert geometry.Geometry.from_json(make().to_json()) == make()
