"""A resident process: one implementation, woken for a turn of steps at a time.

Reads lines of a number of steps, answers each with a line of JSON. Peak memory
is that of the process over what its imports took, since the first turn began.
"""

import json
import pathlib
import sys
import time

import numpy as np


def main(argv: list[str]) -> None:
  """Serves turns: IMPLEMENTATION PROBLEM.npz."""
  name, path = argv
  module = _implementation(name)
  imported = _memory('VmRSS')
  turn = module.make(name, _load(path))
  turn(1)  # Compiles, and allocates what stays.
  _reset_peak()
  _answer(ready=True)
  for line in sys.stdin:
    if line.strip() == 'gradient_error':
      _answer(gradient_error=module.gradient_error(name, _load(path)))
      continue
    start, cpu = time.perf_counter(), time.process_time()
    l0, loss = turn(int(line))
    _answer(
        wall=time.perf_counter() - start,
        cpu=time.process_time() - cpu,
        l0=float(l0),
        loss=float(loss),
        memory=_memory('VmHWM') - imported,
    )


def _load(path: str) -> dict[str, np.ndarray]:
  with np.load(path) as file:
    return dict(file)


def _implementation(name: str):
  # Each in its own process, of which only some have JAX or torch.
  if name.partition('-')[0] in ('ours', 'matmuls', 'encoder'):
    from experiments.benchmarking import ours

    return ours
  from experiments.benchmarking import peers

  return peers


def _memory(field: str) -> int:
  """Returns bytes of this process: VmRSS, or VmHWM for its peak."""
  status = pathlib.Path('/proc/self/status').read_text('utf-8')
  line = next(x for x in status.splitlines() if x.startswith(f'{field}:'))
  return int(line.split()[1]) * 1024


def _reset_peak() -> None:
  pathlib.Path('/proc/self/clear_refs').write_text('5', 'utf-8')


def _answer(**values) -> None:
  sys.__stdout__.write(json.dumps(values) + '\n')
  sys.__stdout__.flush()


if __name__ == '__main__':
  # What libraries print goes to stderr.
  sys.stdout = sys.stderr
  main(sys.argv[1:])
