"""Tests of statistics that are merged over segments of random firings."""

import tracemalloc

import numpy as np

from jumprelu import features
from jumprelu.data import packing
from jumprelu.features import examples, segments, statistics

CONFIG = features.Config(examples=3, sample=30, window=4)
LENGTH, LATENTS = 32, 6


def _random_segment(folder, number, rows, seed):
  """Writes a segment in which latent i fires on (i + 1) tenths of tokens."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(4, 50, (rows, LENGTH))
  tokens[:, 0] = packing.BOS
  starts = np.arange(rows)[:, None] + number * rows
  fires = rng.random((rows * LENGTH, LATENTS)) < np.arange(1, LATENTS + 1) / 10
  latents, at = np.nonzero(fires.T)
  # A few distinct values, so that there are ties.
  values = rng.integers(1, 9, len(at)).astype(np.float32)
  segment = segments.Segment(
      segments.folder_of(folder, number),
      starts[:, 0],
      tokens,
      np.broadcast_to(starts // 3 * 3 * LENGTH, tokens.shape),
      np.asarray(packing.keep_mask(tokens)),
      statistics.position_bin(packing.positions(tokens)),
  )
  counts = np.searchsorted(latents, np.arange(LATENTS + 1))
  _write(segment, segments.Firings(counts, at, values))
  return segment


def _write(segment, firings):
  """Writes a segment with the firings of one member."""
  order = np.argsort(firings.at, kind='stable')
  starts = np.searchsorted(
      firings.at[order], np.arange(segment.tokens.size + 1)
  )
  active = segments.Active(starts, firings.latents[order])
  segments.write(segment, [(firings, active)])


def _opened(folder):
  return segments.open_member(segments.read_all(folder), 0)


def _statistics(block):
  counts = np.sum([np.diff(o.firings.starts) for o in block.opened], axis=0)
  counts = counts[block.start : block.stop]
  return statistics.of_block(block, counts=counts, config=CONFIG)


def _joined(folder, parts):
  """Writes segments as one."""
  fields = zip(*(part[1:] for part in parts), strict=True)
  arrays = [np.concatenate(field) for field in fields]
  whole = segments.Segment(segments.folder_of(folder, 0), *arrays)
  at, values, counts = [], [], [0]
  sizes = np.cumsum([0, *(part.tokens.size for part in parts)])
  for latent in range(LATENTS):
    split = [part.firings(0).block(latent, latent + 1) for part in parts]
    shifted = [f.at + n for f, n in zip(split, sizes[:-1], strict=True)]
    at.append(np.concatenate(shifted))
    values.append(np.concatenate([f.values for f in split]))
    counts.append(counts[-1] + len(at[latent]))
  firings = segments.Firings(
      np.array(counts), np.concatenate(at), np.concatenate(values)
  )
  _write(whole, firings)


def test_merged_statistics_are_those_of_the_joined_text(tmp_path):
  parts = [_random_segment(tmp_path / 'a', i, 6, i) for i in range(4)]
  _joined(tmp_path / 'b', parts)
  blocks = [
      segments.Block(_opened(tmp_path / 'a'), 1, LATENTS),
      segments.Block(_opened(tmp_path / 'b'), 1, LATENTS),
  ]
  merged, joined = (_statistics(b) for b in blocks)
  for x, y in zip(merged.sums, joined.sums, strict=True):
    np.testing.assert_array_equal(x, y)
  ours, theirs = merged.tokens.sums, joined.tokens.sums
  np.testing.assert_array_equal(ours.toarray(), theirs.toarray())
  assert merged.sums.count.min() > CONFIG.sample
  for field in ('top', 'sample'):
    ours, theirs = getattr(merged, field), getattr(joined, field)
    for name in ('latent', 'value', 'position', 'document', 'order'):
      np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
  pools = [
      examples.draw_pool((o.segment for o in b.opened), config=CONFIG)
      for b in blocks
  ]
  np.testing.assert_array_equal(pools[0].position, pools[1].position)
  for kind in ('top', 'silent'):
    windows = []
    for block, pool, every in zip(blocks, pools, (merged, joined), strict=True):
      places = every.top
      if kind == 'silent':
        places = examples.silent(pool, block, config=CONFIG)
      windows += examples.windows([places], block, window=CONFIG.window)
    assert len(windows[0].index) >= LATENTS
    for x, y in zip(*windows, strict=True):
      np.testing.assert_array_equal(x, y)


def test_a_sample_has_the_smallest_hashes(tmp_path):
  segment = _random_segment(tmp_path, 0, 40, 7)
  block = segments.Block(_opened(tmp_path), 0, LATENTS)
  sample = _statistics(block).sample
  for latent in range(LATENTS):
    at = segment.firings(0).block(latent, latent + 1).at
    positions = segment.cache_positions[at]
    hashes = statistics.hashed(CONFIG.seed, positions, latent)
    expected = positions[np.argsort(hashes)][: CONFIG.sample]
    drawn = sample.position[sample.latent == latent]
    np.testing.assert_array_equal(drawn, expected)


def test_hashes_are_uniform_and_depend_on_all_arguments():
  hashes = statistics.hashed(0, np.arange(4_000), 3)
  share = hashes / 2.0**64
  assert abs(share.mean() - 0.5) < 0.02 and abs(share.std() - 0.289) < 0.01
  for other in (
      statistics.hashed(1, np.arange(4_000), 3),
      statistics.hashed(0, np.arange(4_000), 4),
  ):
    assert len(np.intersect1d(hashes, other)) == 0
    assert abs(np.corrcoef(share, other / 2.0**64)[0, 1]) < 0.1


def test_memory_does_not_grow_with_the_text(tmp_path):
  peaks = []
  for count in (2, 10):
    folder = tmp_path / str(count)
    for i in range(count):
      _random_segment(folder, i, 1_000, i)
    block = segments.Block(_opened(folder), 0, LATENTS)
    tracemalloc.start()
    merged = _statistics(block)
    examples.windows([merged.top], block, window=CONFIG.window)
    pool = examples.draw_pool(segments.read_all(folder), config=CONFIG)
    examples.silent(pool, block, config=CONFIG)
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert peaks[1] < 1.2 * peaks[0]
