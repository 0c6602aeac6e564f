"""The parts of a native step: their time, operations and bytes per second.

Needs the program `perf` of Linux, which samples this process while it repeats
the step of a shape:

  python -m experiments.benchmarking.native_parts --shape=M

Operations are multiply-adds that the part needs, and bytes those that it reads
and writes, from a cache or from memory. The last lines have the rates of this
machine's memory, by a copy of a large array, and of XLA's float32 product.
"""

from concurrent import futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import ours
from experiments.benchmarking import problem as problem_lib
from jumprelu import errors
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

# Functions of the native step -> the part that they belong to.
_PARTS = {
    'products of integers': r'Multiply|Compare',
    'rounding and lists': r'Round|Largest|EncodePanels|SortByRow',
    'candidates in float32': r'AllProducts|AppendSelected',
    'decoder and slopes': r'ForwardRows',
    'gradients and update': r'BackwardLatents',
}
_OTHER = 'other'


class Counts(NamedTuple):
  """The multiply-adds and bytes of a part in one step."""

  operations: float
  bytes: float


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_enum(
      'shape', 'M', list(problem_lib.SHAPES), 'Shape.', flag_values=flag_values
  )
  flags_lib.define_integer(
      flag_values, 'seconds', 12, 'Seconds of samples.', lower_bound=1
  )
  flags_lib.define_integer(
      flag_values, 'l0', 64, 'Active latents of a row.', lower_bound=1
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table."""
  shape = problem_lib.SHAPES[flag_values.shape]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    problem_lib.save(path, shape, flag_values.l0, zipf=False)
    trial = ours.make(
        'ours-native',
        problem_lib.load(folder),
        device='cpu',
        precision='float32',
    )
    trial(shape.steps)()
    shares, step = _sampled(
        lambda: trial(shape.steps)(), shape.steps, flag_values.seconds, path
    )
  cores = len(os.sched_getaffinity(0))
  print(f'{shape}: {1e3 * step:.1f} ms a step, {cores} cores')
  counts = needed(shape, flag_values.l0)
  for part, share in shares.items():
    busy = share * step * cores
    text = f'{part:24} {share:6.1%} {1e3 * busy:8.1f} CPU ms a step'
    if part in counts:
      operations, moved = counts[part]
      text += f' {operations / busy / 1e9:8.1f} G multiply-adds/s a core'
      text += f' {moved / busy / 1e9:8.1f} GB/s a core'
    print(text)
  print(f'copy of an array: {_copy_rate() / 1e9:.1f} GB/s, all cores')
  rate = _product_rate() / 1e9
  print(f'float32 product: {rate:.1f} G multiply-adds/s, all cores')
  return 0


def needed(shape: problem_lib.Shape, l0: float) -> dict[str, Counts]:
  """Returns the counts of the parts whose work does not depend on data.

  Args:
    shape: The shape of the step.
    l0: The active latents of a row; those within the kernel are left out.
  """
  matrix = shape.d_model * shape.width
  pairs = l0 * shape.batch * shape.d_model
  return {
      # Each pair of latents with each row, of 1 byte per dimension, and of the
      # latents once.
      'products of integers': Counts(shape.batch * matrix, matrix),
      # A decoder row is read for the reconstruction and for the slope.
      'decoder and slopes': Counts(2 * pairs, 2 * 4 * pairs),
      # An input and an error row for each pair; two matrices and their second
      # moments are read and written.
      'gradients and update': Counts(
          2 * pairs, 2 * 4 * pairs + 2 * 4 * 4 * matrix
      ),
  }


def _sampled(call, steps, seconds, folder):
  """Returns the share of samples of each part, and the seconds of a step."""
  data = folder / 'perf.data'
  command = ['perf', 'record', '-e', 'cpu-clock', '-F', '499', '-o', str(data)]
  try:
    sampler = subprocess.Popen(
        [*command, '-p', str(os.getpid()), '--', 'sleep', str(seconds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
  except FileNotFoundError:
    raise errors.MissingInputError('perf is not installed') from None
  start, count = time.perf_counter(), 0
  while sampler.poll() is None:
    call()
    count += steps
  step = (time.perf_counter() - start) / count
  report = subprocess.run(
      ['perf', 'report', '-i', str(data), '--no-children', '--stdio'],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  return shares_of(report), step


def shares_of(report: str) -> dict[str, float]:
  """Returns the share of each part, from the output of `perf report`."""
  shares = dict.fromkeys([*_PARTS, _OTHER], 0.0)
  for line in report.splitlines():
    match = re.match(r'\s*(\d+\.\d+)%\s.*\[[.k]\]\s(.*)', line)
    if not match:
      continue
    names = (p for p, names in _PARTS.items() if re.search(names, match[2]))
    part = next(names, _OTHER) if 'jumprelu::' in match[2] else _OTHER
    shares[part] += float(match[1]) / 100
  return shares


def _copy_rate() -> float:
  """Returns the bytes per second that all cores read and write in a copy."""
  cores = len(os.sched_getaffinity(0))
  sources = np.array_split(np.ones(1 << 26, np.float32), cores)
  targets = [np.zeros_like(x) for x in sources]
  times = []
  with futures.ThreadPoolExecutor(cores) as pool:
    for _ in range(5):
      start = time.perf_counter()
      list(pool.map(np.copyto, targets, sources))
      times.append(time.perf_counter() - start)
  return 2 * sum(x.nbytes for x in sources) / min(times)


def _product_rate() -> float:
  """Returns the multiply-adds per second of a float32 product in XLA."""
  n = 2048
  x = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)), jnp.float32)
  product = jax.jit(lambda x: x @ x)
  jax.block_until_ready(product(x))
  times = []
  for _ in range(5):
    start = time.perf_counter()
    jax.block_until_ready(product(x))
    times.append(time.perf_counter() - start)
  return n**3 / min(times)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.native_parts',
          sys.argv[1:],
      )
  )
