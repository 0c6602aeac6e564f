"""Activations of two layers, from the language model into a batch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import lm, saes
from jumprelu.activations import blocks, harvest, store
from jumprelu.activations import stream as stream_lib
from jumprelu.data import packing
from jumprelu.training import harvest_store, suite, train_batch
from jumprelu.training import job as job_lib
from tests import small_evaluation as small
from tests import toy_suite
from tests.lm import tiny

RESID = (lm.Tap(1, lm.Site.RESID_POST), lm.Tap(2, lm.Site.RESID_POST))
CROSS = lm.Reads(RESID, RESID)
# Both inputs are divided by the gains of their layers; one target is wider.
MIXED = lm.Reads(
    inputs=(lm.Tap(2, lm.Site.MLP_IN), lm.Tap(1, lm.Site.MLP_IN)),
    targets=(lm.Tap(1, lm.Site.MLP_OUT), lm.Tap(2, lm.Site.ATTN_HEADS)),
    input_gain=False,
)
CONFIG = stream_lib.Config(
    block_positions=96, batch=24, logical_shards=4, lm_sequences=4,
    scale_tokens=96,
)  # fmt: skip


class Loader:
  """A loader that repeats the rows of the held-out text."""

  def block(self, block_index, sequences, *, rows):
    numbers = range(block_index * sequences, (block_index + 1) * sequences)
    cache = small.HELD_OUT
    return cache.tokens_at([n % len(cache) for n in numbers[rows]])


def make_group(reads):
  member = suite.Member(
      site=reads.name, layer=2, width=24, variant='jumprelu',
      sparsity_coefficient=1e-2, target_l0=0.0, seed=0, learning_rate=1e-3,
      initial_threshold=0.01,
  )  # fmt: skip
  return suite.make_group(
      'g',
      reads,
      [member],
      config=saes.jumprelu.Config(),
      d_site=tiny.CONFIG.d_site,
  )


def make_stream(reads):
  model = tiny.model()
  forward = stream_lib.lm_forward(
      model, reads.taps, input_gain=reads.input_gain
  )
  return stream_lib.Stream(
      CONFIG, forward, params=model.params, loader=Loader(), sequence_length=12
  )


def expected(reads, tokens):
  """Returns {tap: [rows, d]}, computed tap by tap, and the keep mask."""
  model, values = tiny.model(), {}
  for tap in reads.taps:
    x = np.asarray(
        lm.activations(
            model,
            model.params,
            jnp.asarray(tokens),
            positions=jnp.asarray(packing.positions(tokens)),
            segments=jnp.asarray(packing.segments(tokens)),
            taps=(tap,),
        )[tap]
    )
    if tap.site is lm.Site.MLP_IN and not reads.input_gain:
      norm = model.params[f'layer_{tap.layer}']['pre_ffw_norm']
      x = x / (1 + np.asarray(norm['scale']))
    values[tap] = np.asarray(x).reshape(-1, x.shape[-1])
  return values, np.asarray(packing.keep_mask(tokens)).reshape(-1)


@pytest.mark.parametrize('reads', [CROSS, MIXED], ids=['cross', 'mixed'])
def test_taps_of_two_layers_are_concatenated_in_a_batch(reads):
  stream, group = make_stream(reads), make_group(reads)
  scales = stream.estimate_scales()
  tokens = Loader().block(0, 8, rows=slice(0, 8))
  values, keep = expected(reads, tokens)
  assert tuple(scales) == reads.taps
  for tap, x in values.items():
    scale = np.sqrt((x[keep].astype(np.float64) ** 2).sum(-1).mean())
    np.testing.assert_allclose(scales[tap], scale, rtol=1e-5)
  assert lm.from_json_keys(json.loads(json.dumps(lm.to_json_keys(scales)))) == (
      scales
  )

  block = stream.make_block(0, scales)
  zero = jnp.int32(0)
  batch = jax.jit(
      lambda block, index: train_batch.make(
          group, block, index, size=24, mesh=None, step=zero,
          learning_rate=jnp.float32(1), sparsity=jnp.float32(1),
      )
  )(block, jnp.int32(1))  # fmt: skip
  x, y, kept = batch.inputs, batch.targets, batch.keep
  # A batch has the next six slots of each of the four shards.
  order = np.asarray(block.order)
  rows = np.concatenate([24 * s + order[s, 6:12] for s in range(4)])
  np.testing.assert_array_equal(kept, keep[rows])
  for array, taps in ((x, reads.inputs), (y, reads.targets)):
    slices = lm.slices_of(taps, group.widths)
    assert array.shape == (24, sum(group.widths[tap] for tap in taps))
    for tap, part in slices.items():
      wanted = np.where(keep[:, None], values[tap], 0)[rows] / scales[tap]
      np.testing.assert_allclose(
          array[:, part], wanted, rtol=2e-5, atol=2e-5, err_msg=str(tap)
      )
  assert (group.sae.d_in, group.sae.d_out) == (x.shape[1], y.shape[1])
  assert group.sae.transcoder == (reads is MIXED)


@pytest.mark.parametrize('reads', [CROSS, MIXED], ids=['cross', 'mixed'])
def test_two_layers_are_stored_and_read_back(tmp_path, reads):
  config = toy_suite.make_config(
      layer=2, tokens=2 * 96, sites=('resid_post',), input_gain=reads.input_gain,
      stream__block_positions=96, stream__batch=24, stream__logical_shards=4,
      stream__lm_sequences=4, corpus__sequence_length=12,
      store=str(tmp_path),
  )  # fmt: skip
  stream = make_stream(reads)
  job = job_lib.Job(config, [make_group(reads)], stream, 'digest of the text')
  facts = harvest_store.make_facts(job, dtype='float32')
  writer = store.Writer(tmp_path)
  with writer.claim():
    harvest_store.write_blocks(writer, job, facts)
  folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
  assert folders == {'keep', *map(str, reads.taps)}

  stored = store.Stored(config, reads.taps, dtype='float32')
  scales = stored.estimate_scales()
  assert scales == stream.estimate_scales()
  for index in range(2):
    ours = stored.make_block(index, scales)
    theirs = stream.make_block(index, scales)
    for number in range(4):
      x, keep = toy_suite.read_batch(ours, jnp.int32(number), size=24)
      y, kept = toy_suite.read_batch(theirs, jnp.int32(number), size=24)
      np.testing.assert_array_equal(keep, kept)
      assert tuple(sorted(x)) == reads.taps
      for tap, value in x.items():
        np.testing.assert_array_equal(value, y[tap])


def test_a_single_tap_is_not_copied():
  x = jnp.ones((3, 4))
  tap = RESID[0]
  assert blocks.concatenated({tap: x}, (tap,)) is x


def test_a_file_of_activations_holds_two_layers(tmp_path):
  tokens = np.asarray(tiny.batch().tokens)
  harvest.harvest(
      tiny.model(), tokens, tmp_path / 'a.npz',
      taps={'low': RESID[0], 'high': RESID[1]},
  )  # fmt: skip
  model = tiny.model()
  with np.load(tmp_path / 'a.npz') as stored:
    for name, tap in (('low', RESID[0]), ('high', RESID[1])):
      value = lm.activations(
          model, model.params, jnp.asarray(tokens), **tiny.batch().kwargs,
          taps=(tap,),
      )[tap]  # fmt: skip
      np.testing.assert_allclose(stored[name], value, rtol=1e-5, atol=1e-5)
