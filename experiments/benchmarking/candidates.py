"""The candidates of the native encoder, and whether it misses a latent.

`jumprelu.ops.native.encode` computes only candidates in float32. Its pairs are
compared with those of a float32 product by XLA. They must be the same wherever a
pre-activation differs from its limit (the threshold minus half the bandwidth) by
more than the errors of both sums, d 2^-24 times the norms of both factors each.

  python -m experiments.benchmarking.candidates --pre_acts=1e10 \\
      --release=jumprelu_demo/release --features=jumprelu_demo/features

The sources are

* the benchmark's problem of shape M, with new inputs in each batch;
* the same problem, damaged: rows and columns of zeros, denormals, magnitudes up
  to 1e14, single large entries, rows equal to columns at whose product the
  threshold is, and few distinct values;
* the JumpReLU SAEs of the release on the passages of the features, with noise of
  a tenth of their deviation from the second time on.

Each has the same share of the pre-activations. A row of the table has the
latents that are active or near, the candidates per row and per such latent, the
pairs too near to a limit to compare, and the pairs that differ, which must be 0.
"""

from collections.abc import Callable, Iterator
import functools
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import machine
from experiments.benchmarking import problem as problem_lib
from experiments.interventions import passages
from jumprelu import errors
from jumprelu.ops import native
from jumprelu.run import main as main_lib

_L0 = 64
_SHAPE = problem_lib.SHAPES['M']
# Tokens of a passage's part.
_LENGTH = 32


class Problem(NamedTuple):
  """Inputs and an encoder, with one row for each latent."""

  inputs: jax.Array
  encoder: jax.Array
  b_enc: jax.Array
  threshold: jax.Array
  bandwidth: float


class Counts(NamedTuple):
  """Sums over all pairs of a batch."""

  rows: Any
  pairs: Any
  selected: Any
  candidates: Any
  uncertain: Any
  wrong: Any


@functools.partial(jax.jit, static_argnames=('bandwidth', 'room'))
def compare(
    inputs: jax.Array,
    encoder: jax.Array,
    b_enc: jax.Array,
    threshold: jax.Array,
    *,
    bandwidth: float,
    room: int,
) -> Counts:
  """Returns the counts of a batch; rows with more pairs than room are wrong."""
  encoded = native.encode(
      inputs, encoder, b_enc, threshold, room=room, bandwidth=bandwidth
  )
  rows, width = len(inputs), len(encoder)
  used = jnp.arange(room)[None, :] < encoded.counts[:, None]
  # Unused entries are written to a column that is then removed.
  columns = jnp.where(used, encoded.latents, width)
  mask = jnp.zeros((rows, width + 1), bool)
  mask = mask.at[jnp.arange(rows)[:, None], columns].set(True)[:, :width]
  product = jnp.matmul(inputs, encoder.T, precision=jax.lax.Precision.HIGHEST)
  pre_acts = product + b_enc[None, :]
  limit = threshold - jnp.float32(bandwidth) / 2
  norms = _norms(inputs)[:, None] * _norms(encoder)[None, :]
  steps = 2 * (inputs.shape[1] + 2)
  size = jnp.abs(b_enc) + jnp.abs(limit)
  # The last term is for numbers that are flushed to zero, below 2^-126.
  error = 2.0**-24 * (steps * norms + 8 * size[None, :]) + 1e-36
  distance = pre_acts - limit[None, :]
  certain = jnp.abs(distance) > error
  wrong = certain & (mask != (distance > 0))
  return Counts(
      rows,
      rows * width,
      mask.sum(),
      encoded.candidates.sum(),
      (~certain).sum(),
      wrong.sum() + (encoded.counts > room).sum(),
  )


def _norms(x: jax.Array) -> jax.Array:
  """Returns the norms of rows, also of rows with large entries."""
  largest = jnp.maximum(jnp.abs(x).max(axis=1), 1e-30)
  return largest * jnp.linalg.norm(x / largest[:, None], axis=1)


def random(*, zipf: bool) -> Iterator[Problem]:
  """Yields the benchmark's problem with new inputs."""
  arrays = problem_lib.make(_SHAPE, _L0, zipf=zipf)
  names = ('W_dec', 'b_enc', 'threshold')
  fixed = [jnp.asarray(arrays[name]) for name in names]
  d = _SHAPE.d_model
  for seed in range(1 << 30):
    key = jax.random.key(seed)
    x = jax.random.normal(key, (_SHAPE.batch, d)) / np.sqrt(d)
    yield Problem(x, *fixed, problem_lib.BANDWIDTH)


def adversarial() -> Iterator[Problem]:
  """Yields the same problem, damaged in a random way."""
  rng = np.random.default_rng(0)
  for problem in random(zipf=False):
    x, w, threshold = map(
        np.array, (problem.inputs, problem.encoder, problem.threshold)
    )
    rows, latents = rng.random(len(x)) < 0.3, rng.random(len(w)) < 0.3
    match int(rng.integers(6)):
      case 0:
        x[rows], w[latents], threshold[::2] = 0, 0, 0
      case 1:
        x[rows] *= np.float32(1e-38)
        w[latents] *= np.float32(1e-40)
      case 2:
        x[rows] *= 10 ** rng.uniform(-20, 14, (rows.sum(), 1))
        scales = 10 ** rng.uniform(-14, 14, latents.sum())
        w[latents] *= scales[:, None]
        threshold[latents] *= scales
      case 3:
        x[rows, 0] = 30
        w[latents, -1] = -30
      case 4:
        count = min(len(x), len(w)) // 2
        x[:count] = w[:count]
        threshold[:count] = np.square(w[:count]).sum(axis=1)
      case 5:
        x, w = np.sign(x) / 16, np.round(w, 2)
    x, w, threshold = map(jnp.asarray, (x, w, threshold))
    yield problem._replace(inputs=x, encoder=w, threshold=threshold)


def trained(release: str, features: str) -> Iterator[Problem]:
  """Yields each SAE of a release, again and again, on all passages."""
  import jumprelu

  suite = jumprelu.load(release)
  members = [sae for sae in suite.values() if sae.variant == 'jumprelu']
  model = members[0].load_lm()
  texts = passages.prompts(
      pathlib.Path(features), count=32, length=_LENGTH, bos=model.bos
  )
  inputs = [
      np.concatenate([model.run(text, sae=sae).inputs[1:] for text in texts])
      - (sae.b_dec if sae.sae.subtracts_decoder_bias else 0)
      for sae in members
  ]
  for number in range(1 << 30):
    sae, x = members[number % len(members)], inputs[number % len(members)]
    if number >= len(members):  # Other inputs of the same kind.
      rng = np.random.default_rng(number)
      x = x + rng.standard_normal(x.shape, np.float32) * x.std() / 10
    yield Problem(
        jnp.asarray(x),
        jnp.asarray(np.ascontiguousarray(sae.W_enc.T)),
        jnp.asarray(sae.b_enc),
        jnp.asarray(sae.threshold),
        0.0,
    )


def measure(problems: Iterator[Problem], pre_acts: float) -> Counts:
  """Returns the sums over batches with at least `pre_acts` pre-activations."""
  totals = Counts(0, 0, 0, 0, 0, 0)
  while totals.pairs < pre_acts:
    problem = next(problems)
    counts = compare(
        *problem[:4],
        bandwidth=problem.bandwidth,
        room=len(problem.encoder),
    )
    counts = map(int, jax.device_get(counts))
    totals = Counts(*(a + b for a, b in zip(totals, counts, strict=True)))
  return totals


def line(name: str, counts: Counts) -> str:
  """Returns a row of the table."""
  selected = counts.selected / counts.rows
  candidates = counts.candidates / counts.rows
  return (
      f'| {name} | {counts.pairs:.3g} | {selected:.1f} | {candidates:.1f} |'
      f' {candidates / max(selected, 1e-9):.2f} | {counts.uncertain:,} |'
      f' {counts.wrong} |'
  )


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_float(
      'pre_acts',
      1e8,
      'Pre-activations of all sources.',
      lower_bound=1,
      flag_values=flag_values,
  )
  for name in ('release', 'features'):
    flags.DEFINE_string(
        name, None, f'The folder of {name}.', flag_values=flag_values
    )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table; the exit status is 1 if a pair is wrong."""
  if not native.encode_kernel():
    raise errors.UserError(
        'this CPU has no integer kernel, so that XLA encodes'
    )
  sources: dict[str, Callable[[], Iterator[Problem]]] = {
      'random': functools.partial(random, zipf=False),
      'random, Zipf': functools.partial(random, zipf=True),
      'damaged': adversarial,
  }
  if flag_values.release:
    sources['trained'] = functools.partial(
        trained, flag_values.release, flag_values.features
    )
  print(machine.describe())
  print(
      '| source | pre-activations | selected a row | candidates a row | ratio |'
      ' uncertain | wrong |\n|---|--:|--:|--:|--:|--:|--:|'
  )
  wrong = 0
  for name, source in sources.items():
    counts = measure(source(), flag_values.pre_acts / len(sources))
    print(line(name, counts), flush=True)
    wrong += counts.wrong
  return int(wrong > 0)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.candidates',
          sys.argv[1:],
      )
  )
