"""A resident process: one implementation, woken for a turn of steps at a time.

Imports, answers, and waits for a line: only then it takes a device's memory.
From there on it reads lines of a number of steps and answers each with a line
of JSON. Peak memory is, on a CPU, that of the whole process since the first
turn began, and `imports` what it had when all was imported; on a GPU, that of
the arrays on it.
"""

import ctypes
import json
import pathlib
import sys
import time
from typing import Any

from experiments.benchmarking import problem


def main(argv: list[str]) -> None:
  """Serves turns: IMPLEMENTATION FOLDER_OF_THE_PROBLEM cpu|gpu PRECISION."""
  name, folder, device, precision = argv
  module = _implementation(name)
  memory = module.Memory() if device == 'gpu' else _HostMemory()
  _answer(imported=True)
  sys.stdin.readline()
  turn = module.make(
      name, problem.load(folder), device=device, precision=precision
  )
  # Compiles, and allocates what stays; the first step's moments are there in
  # the second.
  turn(2)
  memory.reset()
  _answer(ready=True)
  for line in sys.stdin:
    if line.strip() == 'gradient_error':
      error = module.gradient_error(name, problem.load(folder))
      _answer(gradient_error=error)
    else:
      _answer(**_time(turn, int(line), memory))


def _time(turn: Any, steps: int, memory: Any) -> dict[str, float]:
  start, cpu = time.perf_counter(), time.process_time()
  read = turn(steps)
  found = {
      'wall': time.perf_counter() - start,
      'cpu': time.process_time() - cpu,
      'memory': memory.peak(),
      'imports': memory.imports,
  }
  # Not in the time: whoever trains need not look at each step.
  l0, loss = read()
  return found | {'l0': float(l0), 'loss': float(loss)}


def _implementation(name: str):
  # Each in its own process, of which only some have JAX or torch.
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
    """Forgets the peak, and gives back what compiling and such have freed."""
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path('/proc/self/clear_refs').write_text('5', 'utf-8')

  def peak(self) -> int:
    return self._read('VmHWM')


def _answer(**values) -> None:
  sys.__stdout__.write(json.dumps(values) + '\n')
  sys.__stdout__.flush()


if __name__ == '__main__':
  # What libraries print goes to stderr.
  sys.stdout = sys.stderr
  main(sys.argv[1:])
