"""A run of the real command that takes seconds, and readers of its files."""

import json
import random

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

STEPS_A_BLOCK, STEPS_A_SEGMENT = 8, 2

_WORDS = (
    'the of and a to in is you that it he was for on are as with his they at'
    ' be this have from or one had by word but not what all were we when your'
).split()


def overrides(folder, *, steps):
  """Returns the config of a run of `steps` steps, by dotted path."""
  text = folder / 'text'
  if not text.exists():
    text.mkdir()
    rng = random.Random(0)
    for number in range(40):
      lines = [' '.join(rng.choices(_WORDS, k=12)) for _ in range(30)]
      (text / f'{number}.txt').write_text('\n'.join(lines))
  return {
      'layer': 0,
      'sites': ('resid_post', 'transcoder'),
      'widths': (64,),
      'sparsity_coefficients': ('1e-3', '3e-3'),
      'tokens': 256 * steps,
      # These numbers are fixed because the recipe may change. With them, no
      # value crosses an edge of the kernel within a dozen steps; otherwise runs
      # whose sums differ in the last bit would diverge.
      'optim.learning_rate': 4e-3,
      'optim.b2': 0.99,
      'sae.jumprelu.bandwidth': 0.05,
      'data': str(text),
      'corpus.sequence_length': 32,
      'corpus.cache_dir': str(folder / 'cache'),
      'stream.block_positions': 256 * STEPS_A_BLOCK,
      'stream.batch': 256,
      'stream.logical_shards': 8,
      'stream.lm_sequences': 8,
      'stream.batches_per_dispatch': STEPS_A_SEGMENT,
      'stream.scale_tokens': 2048,
      'checkpoint.keep': 1000,
  }


def command(out, config, **changes):
  """Returns the arguments of Python that train `config` in `out`."""
  flags = {'out': out, **config, **changes}
  text = {
      name: ','.join(map(str, value)) if isinstance(value, tuple) else value
      for name, value in flags.items()
  }
  return ['-m', 'jumprelu.run.main', 'train'] + [
      f'--{name}={value}' for name, value in text.items()
  ]


def checkpoints(out):
  """Returns the steps of all checkpoints, sorted."""
  names = [path.name for path in (out / 'checkpoints').iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def arrays(out, step):
  """Returns the arrays of a checkpoint, by name, for any original sharding."""
  path = out / 'checkpoints' / str(step)
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  stored = ocp.metadata(path, checkpointable_name='state').metadata
  wanted = {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
      for name, x in stored.items()
  }
  loaded = ocp.load(path, wanted, checkpointable_name='state')
  return {name: np.asarray(x) for name, x in loaded.items()}


def assert_same_bits(out, other, step):
  """Checks that weights, moments and counters have the same bits."""
  ours, theirs = arrays(out, step), arrays(other, step)
  assert ours.keys() == theirs.keys() and len(ours) > 10
  for name, x in ours.items():
    assert x.dtype == theirs[name].dtype
    assert x.tobytes() == theirs[name].tobytes(), name


def metrics(out):
  """Returns the lines of metrics.jsonl with `seconds` set to 0."""
  lines = (out / 'metrics.jsonl').read_text().splitlines()
  return [{**json.loads(line), 'seconds': 0} for line in lines]
