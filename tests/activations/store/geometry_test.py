"""Files and chunks of a store: their limits and their divisions."""

import math

import pytest

from jumprelu.activations.store import geometry

# The `paper` recipe's blocks; rows are Gemma 2 2B's residual stream.
PAPER = {'block_positions': 2**20, 'batch': 4096, 'shards': 256}


def make(**changes):
  fields = {'blocks': 3, **PAPER, **changes}
  return geometry.make_geometry({'resid_post': 2304}, 'bfloat16', **fields)


def test_a_file_holds_whole_shards_of_one_block_within_the_limit():
  paper = make()
  assert paper.file_shape('resid_post') == (256, 8, 16, 2304)
  assert 2**27 < paper.file_bytes('resid_post') <= 2**28 + 2**16
  chunk = paper.chunk_shape('resid_post')
  assert 2**20 < 2 * math.prod(chunk) <= 2**21
  assert math.prod(paper.array_shape('resid_post')) == 3 * 2**20 * 2304
  # Two bytes per number, one per keep bit, and a small overhead.
  data = 2**20 * (2 * 2304 + 1)
  assert data < paper.block_bytes() < 1.001 * data


@pytest.mark.parametrize('data_axis', [1, 16, 64, 256])
def test_no_file_spans_two_positions_of_the_data_axis(data_axis):
  paper = make(data_axis=data_axis)
  assert paper.parts % data_axis == 0
  assert paper.parts == max(32, data_axis)


def test_the_smallest_file_is_one_shard_and_the_smallest_chunk_one_batch():
  tiny = make(file_bytes=1, chunk_bytes=1)
  assert tiny.file_shape('keep') == (256, 1, 16)
  assert tiny.chunk_shape('keep') == (1, 1, 16)


def test_a_geometry_survives_json():
  assert geometry.Geometry.from_json(make().to_json()) == make()


def test_a_geometry_of_format_2_has_checksums_of_chunks():
  fields = make().to_json()
  assert fields.pop('crc32c') is False
  before = geometry.Geometry.from_json(fields)
  assert before.crc32c
  chunks = before.batches // before.chunk_batches
  extra = before.file_bytes('keep') - make().file_bytes('keep')
  assert extra == 4 * chunks
