"""A suite small enough for any test, with a table as its language model.

Token t has the activation table[t] at every tap, so that tests can look up the
expected contents of a batch. The corpus is an endless sequence of random rows,
each a function of its number.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, saes, sharding
from jumprelu.activations import stream as stream_lib
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import suite, train_batch

LENGTH = 8
LAYER = 2  # The default of configs.
VOCAB = 64
WIDTHS = {
    lm.Site.RESID_POST: 16,
    lm.Site.MLP_OUT: 24,
    lm.Site.MLP_IN: 20,
    lm.Site.ATTN_HEADS: 18,
}

# A block has 16 sequences, 8 logical shards of 16 slots, and 4 batches of 32.
SMALL = {
    'model': 'gemma2_nano',
    'sites': ('resid_post', 'transcoder'),
    'widths': (48,),
    'sparsity_coefficients': ('1e-2', '4e-2'),
    'tokens': 128 * 3 + 40,  # 13 steps
    'optim.learning_rate': 3e-3,
    'sae.jumprelu.threshold_parameter': 'log',
    'corpus.sequence_length': LENGTH,
    'stream.block_positions': 128,
    'stream.batch': 32,
    'stream.logical_shards': 8,
    'stream.lm_sequences': 8,
    'stream.batches_per_dispatch': 3,
    'stream.scale_tokens': 64,
}


class Loader:
  """Rows by number: BOS and text, and EOS and padding in every third row."""

  def __init__(self, first=0):
    self.requests: list[slice] = []
    self._first = first

  def reseeded(self, count):
    return Loader(self._first + 10_000 * count)

  def block(self, block_index, sequences, *, rows):
    self.requests.append(rows)
    numbers = range(block_index * sequences, (block_index + 1) * sequences)
    return np.stack([self.row(number) for number in numbers[rows]])

  def row(self, number):
    rng = np.random.default_rng(self._first + number)
    row = rng.integers(4, VOCAB, LENGTH)
    row[0] = 2
    if number % 3 == 2:
      row[-3:] = 1, 0, 0
    return row.astype(np.int32)


TAPS = tuple(lm.Tap(LAYER, site) for site in WIDTHS)


def make_table(taps=TAPS):
  """Returns {tap: [vocab, d_site]}; scale and mean differ between sites."""
  table = {}
  for layer, site in taps:
    number = list(WIDTHS).index(site)
    seed = number if layer == LAYER else (number, layer)
    noise = np.random.default_rng(seed).normal(size=(VOCAB, WIDTHS[site]))
    table[lm.Tap(layer, site)] = ((1 + number) * noise + number / 2).astype(
        np.float32
    )
  return table


def forward(params, tokens):
  """Returns the activations of the language model, {tap: [..., d_site]}."""
  return {tap: table[tokens] for tap, table in params.items()}


def make_config(**changes):
  """Returns the small config with changes by dotted path, `__` for a dot."""
  named = {name.replace('__', '.'): value for name, value in changes.items()}
  return config_lib.resolve(SMALL | named)


def make_groups(config):
  return suite.make_groups(
      config_lib.members(config),
      configs=config.variant_configs(),
      d_site=WIDTHS.__getitem__,
  )


def taps(config):
  """Returns the taps that the config's suite reads."""
  return suite.taps(make_groups(config))


def make_stream(config, *, table=None, mesh=None, loader=None, seed=0):
  params = make_table() if table is None else table
  place = sharding.replicated(mesh) if mesh is not None else None
  return stream_lib.Stream(
      config.stream,
      forward,
      params=jax.device_put(params, place),
      loader=loader or Loader(),
      sequence_length=LENGTH,
      seed=seed,
      mesh=mesh,
  )


def read_batch(block, index, *, size=32, mesh=None):
  """Returns batch `index` as training reads it: ({tap: inputs}, keep)."""
  inputs = {}
  for tap, stored in block.activations.items():
    batch = train_batch.make(
        _make_reader(tap, stored.shape[-1]),
        block,
        index,
        size=size,
        mesh=mesh,
        step=jnp.int32(0),
        learning_rate=jnp.float32(1),
        sparsity=jnp.float32(1),
    )
    inputs[tap], keep = batch.inputs, batch.keep
  return inputs, keep


def _make_reader(tap, d_site):
  """Returns a group of one narrow SAE that reads a single tap."""
  member = suite.Member(
      site=tap.site,
      layer=tap.layer,
      width=48,
      variant='jumprelu',
      sparsity_coefficient=1e-2,
      target_l0=0.0,
      seed=0,
      learning_rate=1e-3,
      initial_threshold=0.01,
  )
  return suite.make_group(
      str(tap),
      lm.Reads((tap,), (tap,)),
      [member],
      config=saes.jumprelu.Config(),
      d_site=lambda site: d_site,
  )


def make_job(config, *, mesh=None, table=None):
  groups = make_groups(config)
  table = make_table(suite.taps(groups)) if table is None else table
  stream = make_stream(config, table=table, mesh=mesh)
  return job_lib.Job(
      config,
      groups,
      stream,
      'digest of the text',
      mesh,
      lm_digest='the table',
      lm_dtype='float32',
  )


def make_mesh(data, tensor=1):
  """Returns a mesh of the first `data * tensor` simulated devices."""
  return sharding.make_mesh(
      sharding.Config(data=data, tensor=tensor), jax.devices()[: data * tensor]
  )
