"""The speed of a training step in two checkouts, compared in each round.

Each checkout runs in a separate process. A round has four trials of a few steps
on the same batches, in the order other, this, this, other, so that a drift of
the machine's speed cancels. The ratio of a round is the seconds of this
checkout over those of the other, so a ratio below 1 means that this checkout is
faster. The table has the median of the ratio over rounds. Its interval comes
from order statistics and covers the median with at least 95 % confidence.

  git worktree add ../before COMMIT
  python -m experiments.benchmarking.against --root=../before --rounds=20
"""

from collections.abc import Sequence
import contextlib
import math
import os
import pathlib
import statistics
import sys
import tempfile

from absl import flags

from experiments.benchmarking import benchmark, machine, problem, resident
from jumprelu import errors
from jumprelu.ops import native
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

_CONFIDENCE = 0.95


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_string(
      'root', None, 'The other checkout.', flag_values=flag_values
  )
  flags.DEFINE_string(
      'python',
      sys.executable,
      'Python interpreter that has the native step of the other checkout'
      ' installed.',
      flag_values=flag_values,
  )
  flags.DEFINE_list(
      'backends',
      list(benchmark.BACKENDS['cpu']),
      'Backends to time; both checkouts must have backends of these names.',
      flag_values=flag_values,
  )
  flags.DEFINE_enum(
      'shape',
      'M',
      list(problem.SHAPES),
      'Name of a size of SAE and batch (problem.py).',
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values, 'rounds', 20, 'Number of rounds.', lower_bound=6
  )


def run(flag_values: flags.FlagValues) -> int:
  """Times every backend in both checkouts, and prints a table."""
  root = pathlib.Path(flag_values.root or '').expanduser().resolve()
  if not flag_values.root or not (root / 'jumprelu').is_dir():
    raise errors.UserError(
        f'--root={flag_values.root} is not a checkout: it has no folder'
        ' `jumprelu`'
    )
  shape = problem.SHAPES[flag_values.shape]
  with tempfile.TemporaryDirectory() as folder:
    problem.save(pathlib.Path(folder), shape, 64, zipf=False)
    job = resident.Job(pathlib.Path(folder), 'cpu', 'float32')
    print(machine.describe())
    print(f'{flag_values.shape}, {flag_values.rounds} rounds: this / other')
    for backend in flag_values.backends:
      if backend == 'native' and native.why_not():
        raise errors.UserError(f'--backends=native: {native.why_not()}')
      ratios = measure(
          f'ours-{backend}',
          job,
          other=(flag_values.python, root),
          rounds=flag_values.rounds,
          steps=shape.steps,
      )
      low, high = interval(ratios)
      print(
          f'  {backend:8} {statistics.median(ratios):.3f}'
          f' ({low:.3f} to {high:.3f})',
          flush=True,
      )
  return 0


def measure(
    name: str,
    job: resident.Job,
    *,
    other: tuple[str, pathlib.Path],
    rounds: int,
    steps: int,
) -> list[float]:
  """Returns this checkout's seconds over the other's, for each round."""
  python, root = other
  with contextlib.ExitStack() as stack:
    ours = resident.Resident(name, sys.executable, job)
    stack.callback(ours.close)
    theirs = resident.Resident(name, python, job, root=root, flag='--python')
    stack.callback(theirs.close)
    for process in (ours, theirs):
      process.prepare()
    ratios = []
    for _ in range(rounds):
      order = (theirs, ours, ours, theirs)
      seconds = [process.trial(steps)['wall'] for process in order]
      ratios.append((seconds[1] + seconds[2]) / (seconds[0] + seconds[3]))
  return ratios


def interval(values: Sequence[float]) -> tuple[float, float]:
  """Returns order statistics that enclose the median with 95 % confidence.

  The interval from the k-th smallest to the k-th largest of n values misses the
  median with probability 2 P(Binomial(n, 1/2) < k). k is the largest number for
  which this is at most 5 %.

  Raises:
    ValueError: There are fewer than 6 values, so that no k is small enough.
  """
  count, k = len(values), 0
  while 2 * _below(count, k + 1) <= 1 - _CONFIDENCE:
    k += 1
  if not k:
    raise ValueError(f'{count} values are too few for an interval')
  ordered = sorted(values)
  return ordered[k - 1], ordered[-k]


def _below(count: int, k: int) -> float:
  """Returns P(Binomial(count, 1/2) < k)."""
  return sum(math.comb(count, i) for i in range(k)) / 2**count


if __name__ == '__main__':
  # Waiting threads must leave the cores to the process that is being timed.
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.against',
          sys.argv[1:],
      )
  )
