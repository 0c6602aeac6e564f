"""A resident process: one implementation, which runs trials on request.

The process imports its packages, answers, and waits for a line before it uses
the device's memory. It then reads requests from stdin, one per line: a number
of steps to time, or `gradient_error`. It answers each with a line of JSON. On a
CPU, `memory` is the peak of the whole process since the first trial, and
`imports` the memory of the process after its imports. On a GPU, `memory` is the
peak of the arrays on it, and `imports` is 0.
"""

import ctypes
import json
import pathlib
import sys
import time
from typing import Any

from experiments.benchmarking import problem


def main(argv: list[str]) -> None:
  """Serves trials; `argv` is IMPLEMENTATION FOLDER cpu|gpu PRECISION."""
  name, folder, device, precision = argv
  module = _implementation(name)
  memory = module.Memory() if device == 'gpu' else _HostMemory()
  _answer(imported=True)
  sys.stdin.readline()
  trial = module.make(
      name, problem.load(folder), device=device, precision=precision
  )
  # Compiles, and allocates lasting memory. The second step is needed because
  # some optimizers allocate their moments in the first.
  trial(2)
  memory.reset()
  _answer(ready=True)
  for line in sys.stdin:
    if line.strip() == 'gradient_error':
      error = module.gradient_error(name, problem.load(folder))
      _answer(gradient_error=error)
    else:
      _answer(**_time(trial, int(line), memory))


def _time(trial: Any, steps: int, memory: Any) -> dict[str, float]:
  start, cpu = time.perf_counter(), time.process_time()
  read = trial(steps)
  results = {
      'wall': time.perf_counter() - start,
      'cpu': time.process_time() - cpu,
      'memory': memory.peak(),
      'imports': memory.imports,
  }
  # Not timed, because training need not read L0 and loss at each step.
  l0, loss = read()
  return results | {'l0': float(l0), 'loss': float(loss)}


def _implementation(name: str):
  # Imported here, because an environment may have only JAX or only torch.
  if name.partition('-')[0] in ('ours', 'matmuls', 'encoder'):
    from experiments.benchmarking import ours

    return ours
  from experiments.benchmarking import peers

  peers.load(name)
  return peers


class _HostMemory:
  """Memory of this process, in bytes."""

  def __init__(self):
    self.imports = self._read('VmRSS')

  def _read(self, field: str) -> int:
    status = pathlib.Path('/proc/self/status').read_text('utf-8')
    line = next(x for x in status.splitlines() if x.startswith(f'{field}:'))
    return int(line.split()[1]) * 1024

  def reset(self) -> None:
    """Resets the peak, after returning freed memory to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path('/proc/self/clear_refs').write_text('5', 'utf-8')

  def peak(self) -> int:
    return self._read('VmHWM')


def _answer(**values) -> None:
  sys.__stdout__.write(json.dumps(values) + '\n')
  sys.__stdout__.flush()


if __name__ == '__main__':
  # Prints of libraries go to stderr, because stdout carries the answers.
  sys.stdout = sys.stderr
  main(sys.argv[1:])
