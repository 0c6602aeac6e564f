"""Blocks: each row once, the same batches on any mesh, no dropped rows."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.activations import blocks, dropped_rows
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import stream as stream_lib
from jumprelu.data import packing
from tests import toy_suite

_TAP = lm.Tap(toy_suite.LAYER, lm.Site.RESID_POST)
_OTHER = lm.Tap(toy_suite.LAYER, lm.Site.MLP_OUT)
_ONES = scales_lib.Scales({_TAP: 1.0})


def _table():
  return toy_suite.make_table((_TAP,))


def _batches(mesh=None, *, index=0, scales=None, **kwargs):
  """Returns a block's batches, stacked: ({tap: [batches, batch, d]}, keep)."""
  config = toy_suite.make_config()
  kwargs.setdefault('table', toy_suite.make_table((_TAP, _OTHER)))
  stream = toy_suite.make_stream(config, mesh=mesh, **kwargs)
  scales = scales or stream.estimate_scales()
  block = stream.make_block(index, scales)
  read_batch = jax.jit(
      functools.partial(
          toy_suite.read_batch, size=config.stream.batch, mesh=mesh
      )
  )
  batches = [
      read_batch(block, stream.put(j)) for j in range(config.stream.batches)
  ]
  return jax.tree.map(lambda *x: np.stack(x), *jax.device_get(batches))


def _block_tokens(index, sequences=16):
  return toy_suite.Loader().block(index, sequences, rows=slice(0, sequences))


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'block_positions': 65000}, 'block_positions=65000.*64512 or 65536'),
        ({'batch': 1000}, 'batch=1000.*logical_shards=16.*992 or 1008'),
        ({'lm_sequences': 0}, 'lm_sequences must be at least 1, got 0'),
    ],
)
def test_bad_geometry_names_the_nearest_valid_numbers(fields, message):
  with pytest.raises(errors.UserError, match=message):
    stream_lib.Config(**fields)


def test_geometry_is_checked_against_sequences_and_mesh():
  config = stream_lib.Config(block_positions=7168, batch=1024)
  with pytest.raises(errors.UserError, match='28 sequences.*nearest: 14 or 28'):
    config.sequences(256)
  with pytest.raises(errors.UserError, match='=16 .*the data axis=6.*12 or 18'):
    stream_lib.Config().check_data_axis(6)
  assert stream_lib.Config().sequences(256) == 256
  assert stream_lib.Config().batches == 64


def test_every_row_of_a_block_is_in_exactly_one_batch():
  # The forward pass returns the numbers of the positions.
  def number_rows(params, tokens):
    del params
    rows = tokens[:, 1].astype(jnp.float32)[:, None] * toy_suite.LENGTH
    ids = rows + jnp.arange(toy_suite.LENGTH, dtype=jnp.float32)[None]
    return {_TAP: ids[:, :, None] + 1.0}

  class Numbered:

    def block(self, block_index, sequences, *, rows):
      tokens = np.full((sequences, toy_suite.LENGTH), 5, np.int32)
      tokens[:, 1] = np.arange(sequences) + 4
      return tokens[rows]

  config = toy_suite.make_config()
  stream = stream_lib.Stream(
      config.stream,
      number_rows,
      params={},
      loader=Numbered(),
      sequence_length=toy_suite.LENGTH,
  )
  block = stream.make_block(0, _ONES)
  rows = [
      toy_suite.read_batch(block, stream.put(j))[0][_TAP][:, 0]
      for j in range(4)
  ]
  ids = np.concatenate(rows) - 1.0 - 4 * toy_suite.LENGTH
  np.testing.assert_array_equal(np.sort(ids), np.arange(128))
  # The order is not that of the text: a batch has 4 of the 16 rows of each
  # shard of the block.
  assert np.abs(np.corrcoef(ids, np.arange(128))[0, 1]) < 0.3
  shards = np.stack(rows).astype(int).reshape(4, 8, 4) - 1 - 32
  np.testing.assert_array_equal(
      shards // 16, np.broadcast_to(np.arange(8)[None, :, None], (4, 8, 4))
  )


def test_a_batch_holds_the_scaled_activations_in_the_blocks_order():
  config = toy_suite.make_config()
  stream = toy_suite.make_stream(config, table=_table())
  block = stream.make_block(3, scales_lib.Scales({_TAP: 2.5}))
  order = np.asarray(block.order)
  tokens = _block_tokens(3).reshape(8, 16)  # logical shards
  keep = packing.keep_mask(tokens)
  for j in range(4):
    inputs, kept = toy_suite.read_batch(block, stream.put(j))
    slots = order[:, 4 * j : 4 * j + 4]
    chosen = np.take_along_axis(tokens, slots, axis=1).reshape(-1)
    mask = np.take_along_axis(keep, slots, axis=1).reshape(-1)
    expected = np.where(mask[:, None], _table()[_TAP][chosen] / 2.5, 0.0)
    np.testing.assert_array_equal(kept, mask)
    np.testing.assert_allclose(inputs[_TAP], expected, rtol=1e-6)


def test_orders_differ_between_shards_blocks_and_seeds():
  order = functools.partial(blocks.make_order, shards=2, slots=64)
  orders = [
      order(0, jnp.int32(0)),
      order(0, jnp.int32(1)),
      order(1, jnp.int32(0)),
  ]
  rows = np.concatenate(orders)
  np.testing.assert_array_equal(
      np.sort(rows, axis=1), np.broadcast_to(np.arange(64), (6, 64))
  )
  assert len({tuple(row) for row in rows.tolist()}) == 6


@pytest.fixture(scope='module')
def alone():
  """The batches on one device."""
  return _batches()


@pytest.mark.parametrize('data, tensor', [(2, 1), (8, 1), (4, 2)])
def test_batches_are_the_same_bits_on_any_number_of_devices(
    data, tensor, alone
):
  spread = _batches(toy_suite.make_mesh(data, tensor))
  jax.tree.map(np.testing.assert_array_equal, spread, alone)
  assert alone[1].sum() == packing.keep_mask(_block_tokens(0)).sum()


def test_batches_depend_on_config_and_index_only():
  config = toy_suite.make_config()
  scales = scales_lib.Scales({_TAP: 4.0})
  stream = toy_suite.make_stream(config, table=_table())
  for index in (0, 1, 2):
    last = stream.make_block(index, scales)
  fresh = toy_suite.make_stream(config, table=_table()).make_block(2, scales)
  jax.tree.map(np.testing.assert_array_equal, fresh, last)


def test_shuffling_moves_nothing_between_devices():
  config = toy_suite.make_config()
  mesh = toy_suite.make_mesh(8)
  stream = toy_suite.make_stream(config, table=_table(), mesh=mesh)
  block = stream.make_block(0, scales_lib.Scales({_TAP: 4.0}))
  read_batch = jax.jit(functools.partial(toy_suite.read_batch, mesh=mesh))
  text = read_batch.lower(block, stream.put(1)).compile().as_text()
  assert 'gather(' in text
  assert not re.findall(
      r'all-gather|all-to-all|all-reduce|collective-permute', text
  )


def test_each_device_loads_only_its_own_rows():
  config = toy_suite.make_config()
  loader = toy_suite.Loader()
  mesh = toy_suite.make_mesh(4, 2)
  stream = toy_suite.make_stream(
      config, table=_table(), mesh=mesh, loader=loader
  )
  stream.make_block(0, _ONES)
  requests = sorted((rows.start, rows.stop) for rows in loader.requests)
  assert requests == [(0, 4), (4, 8), (8, 12), (12, 16)]


def test_scale_is_the_root_mean_square_norm_of_kept_rows():
  config = toy_suite.make_config()  # 64 positions: the first 8 sequences
  scales = toy_suite.make_stream(config).estimate_scales()
  tokens = _block_tokens(0, 8)
  kept = tokens[packing.keep_mask(tokens)]
  for tap, table in toy_suite.make_table().items():
    expected = np.sqrt((table[kept].astype(np.float64) ** 2).sum(-1).mean())
    np.testing.assert_allclose(scales[tap], expected, rtol=1e-6)


def test_scale_does_not_depend_on_the_number_of_devices():
  config = toy_suite.make_config()
  alone = toy_suite.make_stream(config).estimate_scales()
  mesh = toy_suite.make_mesh(8)
  assert toy_suite.make_stream(config, mesh=mesh).estimate_scales() == alone


@pytest.mark.parametrize('scale_tokens', [40, 41, 64])
def test_scale_does_not_depend_on_how_many_sequences_are_forwarded(
    scale_tokens,
):
  rows = -(-scale_tokens // toy_suite.LENGTH)
  scales = []
  for lm_sequences in 1, 2, 4, 8, 16:
    config = toy_suite.make_config(
        stream__lm_sequences=lm_sequences, stream__scale_tokens=scale_tokens
    )
    scales.append(toy_suite.make_stream(config).estimate_scales())
  assert all(other == scales[0] for other in scales)
  # The first `scale_tokens`, rounded up to whole sequences.
  tokens = _block_tokens(0, rows)
  kept = toy_suite.make_table((_TAP,))[_TAP][tokens[packing.keep_mask(tokens)]]
  expected = np.sqrt((kept.astype(np.float64) ** 2).sum(-1).mean())
  np.testing.assert_allclose(scales[0][_TAP], expected, rtol=1e-6)


def test_scales_of_whole_forwards_have_the_bits_of_earlier_versions():
  # Earlier versions summed forward by forward and did not mask surplus rows.
  table = toy_suite.make_table()
  for lm_sequences in 2, 4, 8:
    config = toy_suite.make_config(stream__lm_sequences=lm_sequences)
    scales = toy_suite.make_stream(config).estimate_scales()
    sums = jax.jit(functools.partial(blocks.square_sums, toy_suite.forward))
    squares, rows = dict.fromkeys(table, 0.0), 0
    for index in range(8 // lm_sequences):  # 64 tokens are 8 sequences.
      square_sums, counts = sums(table, _block_tokens(index, lm_sequences))
      rows += int(counts.sum())
      for site, values in square_sums.items():
        squares[site] += float(np.asarray(values, np.float64).sum())
    assert scales == {s: (x / rows) ** 0.5 for s, x in squares.items()}


def test_a_site_without_activations_is_an_error():
  table = {_TAP: np.zeros((toy_suite.VOCAB, 4), np.float32)}
  stream = toy_suite.make_stream(toy_suite.make_config(), table=table)
  with pytest.raises(
      errors.DataError, match='layer_2.resid_post .*mean square 0'
  ):
    stream.estimate_scales()


def test_bad_rows_are_zeroed_masked_and_counted():
  tokens = jnp.asarray([[2, 10, 11, 12], [13, 14, 1, 0]])
  x = np.ones((2, 4, 3), np.float32)
  x[0, 1] = np.nan
  x[0, 2, 0] = np.inf
  x[0, 3] = 1e3 * 2 / np.sqrt(3) * 1.01  # 1% above 1e3 times the scale of 2
  x[1, 0] = 1e3 * 2 / np.sqrt(3) * 0.99
  x[1, 2] = np.nan  # EOS is not text, so it is not counted.
  half = {_TAP: jnp.float32(0.5)}
  cleaned, keep, dropped = dropped_rows.clean(
      {_TAP: jnp.asarray(x)}, tokens, half
  )
  np.testing.assert_array_equal(
      keep, [[False, False, False, False], [True, True, False, False]]
  )
  expected = np.where(np.asarray(keep)[:, :, None], x, 0.0)
  np.testing.assert_array_equal(cleaned[_TAP], expected)
  assert int(dropped) == 3


def test_a_row_that_is_bad_at_one_site_is_dropped_at_all():
  x = jnp.ones((1, 2, 3))
  bad = x.at[0, 1, 0].set(jnp.inf)
  ones = {_TAP: jnp.float32(1), _OTHER: jnp.float32(1)}
  tokens = jnp.full((1, 2), 9)
  cleaned, keep, _ = dropped_rows.clean({_TAP: x, _OTHER: bad}, tokens, ones)
  np.testing.assert_array_equal(keep, [[True, False]])
  np.testing.assert_array_equal(cleaned[_TAP][0, 1], np.zeros(3))


def test_the_values_of_a_dropped_row_do_not_reach_a_batch():
  clean = _table()
  dirty = {_TAP: clean[_TAP].copy()}
  dirty[_TAP][:3] = np.nan  # PAD, EOS, BOS
  scales = scales_lib.Scales({_TAP: 4.0})
  jax.tree.map(
      np.testing.assert_array_equal,
      _batches(table=dirty, scales=scales),
      _batches(table=clean, scales=scales),
  )


@pytest.mark.parametrize('gain', [True, False])
def test_the_language_model_receives_segments_and_positions(monkeypatch, gain):
  tokens = jnp.asarray([[2, 5, 1, 2, 7, 8, 1, 0]])
  taps = lm.Tap(3, lm.Site.MLP_IN), lm.Tap(3, lm.Site.MLP_OUT)
  seen = {}

  def activations(model, params, tokens, **kwargs):
    del model, params
    seen.update(kwargs)
    return {tap: jnp.full((*tokens.shape, 2), 6.0) for tap in kwargs['taps']}

  monkeypatch.setattr(lm, 'activations', activations)
  monkeypatch.setattr(lm, 'input_gain', lambda params, layer: params[layer])
  model = lm.LanguageModel(lm.get_config('gemma2_nano'), {}, pathlib.Path(), 4)
  forward = stream_lib.lm_forward(model, taps, input_gain=gain)
  values = forward({3: jnp.asarray([2.0, 3.0])}, tokens)

  assert sorted(seen['taps']) == sorted(taps)
  np.testing.assert_array_equal(seen['segments'], [[1, 1, 1, 2, 2, 2, 2, 0]])
  np.testing.assert_array_equal(seen['positions'], [[0, 1, 2, 0, 1, 2, 3, 0]])
  np.testing.assert_array_equal(values[taps[1]][0, 0], [6.0, 6.0])
  expected = [6.0, 6.0] if gain else [3.0, 2.0]
  np.testing.assert_array_equal(values[taps[0]][0, 0], expected)
