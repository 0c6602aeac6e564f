"""The time of a step of TopK and BatchTopK SAEs, by backend.

All SAEs have the same random encoder and batches, and about the same L0. Each
round runs a trial of each of them, in alternating order. Times are compared
within the round. JumpReLU's native step is the one to compare with.

With `--dead`, a share of the latents is dead: their pre-activations are a fifth
as large as those of others, so that they are positive but never chosen. Their
auxiliary term is then part of the step.

  python -m experiments.benchmarking.variants --backends=oracle,native
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
import statistics
import sys
import time
from typing import Any

from absl import flags
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import machine, ours
from experiments.benchmarking import problem as problem_lib
from jumprelu import saes
from jumprelu.run import main as main_lib
from jumprelu.training import suite

_JUMPRELU = ('jumprelu', 'native')
# More rows than any `dead_after`.
_LONG = 2**30

# Milliseconds of wall and CPU time of a step, by (variant, backend).
Times = dict[tuple[str, str], list[tuple[float, float]]]


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  integers = {
      'd_model': (640, 'Model width; 640 is that of Gemma 3 270M.'),
      'width': (16384, 'Number of latents.'),
      'batch': (2048, 'Rows of a batch.'),
      'k': (50, 'Active latents of a row.'),
      'steps': (2, 'Steps of a trial.'),
      'rounds': (3, 'Rounds.'),
  }
  for name, (default, text) in integers.items():
    flags.DEFINE_integer(name, default, text, 1, flag_values=flag_values)
  lists = {
      'variants': (['topk', 'batch_topk'], 'Variants besides JumpReLU.'),
      'backends': (['oracle', 'sparse', 'native'], 'Backends of the variants.'),
  }
  for name, (default, text) in lists.items():
    flags.DEFINE_list(name, default, text, flag_values=flag_values)
  flags.DEFINE_float(
      'dead', 0.0, 'Share of dead latents.', 0, 1, flag_values=flag_values
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table as Markdown."""
  shape = problem_lib.Shape(
      flag_values.d_model,
      flag_values.width,
      flag_values.batch,
      flag_values.steps,
  )
  names = [
      _JUMPRELU,
      *itertools.product(flag_values.variants, flag_values.backends),
  ]
  problem = problem_lib.make(shape, flag_values.k, zipf=False)
  trials = {
      name: make(name, problem, k=flag_values.k, dead=flag_values.dead)
      for name in names
  }
  print(machine.describe())
  print(table(measure(trials, shape.steps, flag_values.rounds)))
  return 0


def make(
    name: tuple[str, str],
    problem: Mapping[str, np.ndarray],
    *,
    k: int,
    dead: float = 0.0,
) -> ours.Trial:
  """Returns trials of a variant by a backend."""
  variant, backend = name
  width, d_model = problem['W_dec'].shape
  member = suite.Member(
      site='resid_post',
      layer=0,
      width=width,
      variant=variant,
      sparsity_coefficient=problem_lib.COEFFICIENT,
      target_l0=float(k),
      seed=0,
      learning_rate=problem_lib.LEARNING_RATE,
      initial_threshold=1.0,
  )
  configs = {
      'jumprelu': saes.jumprelu.Config(bandwidth=problem_lib.BANDWIDTH),
      'topk': saes.topk.Config(),
      'batch_topk': saes.batch_topk.Config(),
  }
  (group,) = suite.make_groups(
      [member], configs=configs, d_site=lambda _: d_model
  )
  is_dead = np.arange(width) < dead * width
  params = _params(group.sae, problem, k)
  if variant != 'jumprelu':
    scale = jnp.where(is_dead, 0.2, 1.0)
    params['W_enc'] = params['W_enc'] * scale[None, :]
  return ours.trainer(
      group,
      params,
      problem['x'],
      steps=len(problem['x']),
      backend=backend,
      silent=np.where(is_dead, _LONG, 0),
  )


def _params(
    sae: Any, problem: Mapping[str, np.ndarray], k: int
) -> dict[str, Any]:
  W_dec = jnp.asarray(problem['W_dec'])
  params = {
      'W_enc': W_dec.T,
      'b_enc': jnp.asarray(problem['b_enc']),
      'W_dec': W_dec,
      'b_dec': jnp.asarray(problem['b_dec']),
  } | sae.init_own_params(initial_threshold=1.0, target_l0=float(k))
  if sae.variant == 'jumprelu':
    params['log_threshold'] = jnp.log(jnp.asarray(problem['threshold']))
  return params


def measure(
    trials: Mapping[tuple[str, str], Callable[[int], Any]],
    steps: int,
    rounds: int,
) -> Times:
  """Returns the times of a step in each round."""
  times: Times = {name: [] for name in trials}
  l0 = {}
  for name, trial in trials.items():
    start = time.perf_counter()
    l0[name] = float(trial(steps)()[0])
    seconds = time.perf_counter() - start
    print(
        f'{" ".join(name)}: {seconds:.1f} s, L0 {l0[name]:.1f}', file=sys.stderr
    )
  for number in range(rounds):
    names = list(trials) if number % 2 else list(reversed(trials))
    for name in names:
      wall, cpu = time.perf_counter(), time.process_time()
      trials[name](steps)
      times[name].append(
          (
              1e3 * (time.perf_counter() - wall) / steps,
              1e3 * (time.process_time() - cpu) / steps,
          )
      )
  return times


def table(times: Times) -> str:
  """Returns a Markdown table of the medians over rounds."""
  lines = [
      '| variant | backend | ms per step | CPU ms | over JumpReLU, native |',
      '|---|---|---|---|---|',
  ]
  for (variant, backend), measured in times.items():
    wall, cpu = (statistics.median(x) for x in zip(*measured, strict=True))
    ratio = statistics.median(_ratios(measured, times[_JUMPRELU]))
    lines.append(
        f'| {variant} | {backend} | {wall:.0f} | {cpu:.0f} | {ratio:.2f} |'
    )
  return '\n'.join(lines)


def _ratios(
    above: Sequence[tuple[float, float]], below: Sequence[tuple[float, float]]
) -> list[float]:
  """Returns the ratio of wall times of each round."""
  return [a[0] / b[0] for a, b in zip(above, below, strict=True)]


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.variants',
          sys.argv[1:],
      )
  )
