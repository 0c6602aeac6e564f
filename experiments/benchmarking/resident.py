"""Resident processes that take turns (`worker.py`)."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import subprocess

from jumprelu import errors

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class Resident:
  """One implementation in its process."""

  def __init__(self, name: str, python: str, problem: pathlib.Path):
    self._name = name
    module = 'experiments.benchmarking.worker'
    try:
      self._process = subprocess.Popen(
          [python, '-m', module, name, str(problem)],
          cwd=_ROOT,
          env=os.environ | {'SPARSIFY_DISABLE_TRITON': '1'},
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
      )
    except OSError as error:
      raise errors.UserError(f'--peers_python={python}: {error}') from error

  def answer(self) -> dict[str, float]:
    """Waits for its next line."""
    line = self._process.stdout.readline()
    if not line:
      raise errors.UserError(
          f'{self._name} ended with code {self._process.wait()}; what it said'
          ' stands above. Is it installed where --peers_python is?'
      )
    return json.loads(line)

  def _ask(self, line: str) -> dict[str, float]:
    print(line, file=self._process.stdin, flush=True)
    return self.answer()

  def turn(self, steps: int) -> dict[str, float]:
    """Has it take steps; returns seconds and what else they report."""
    return self._ask(str(steps))

  def gradient_error(self) -> float:
    """Has it compare its gradients with automatic differentiation."""
    return self._ask('gradient_error')['gradient_error']

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()


@contextlib.contextmanager
def all_of(
    pythons: Mapping[str, str], problem: pathlib.Path
) -> Iterator[dict[str, Resident]]:
  """Starts an implementation a name, one after another; ends them all."""
  with contextlib.ExitStack() as stack:
    processes = {}
    for name, python in pythons.items():
      process = Resident(name, python, problem)
      stack.callback(process.close)
      process.answer()
      processes[name] = process
    yield processes
