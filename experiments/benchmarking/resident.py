"""Resident processes that take turns (`worker.py`)."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess

from jumprelu import errors

_ROOT = pathlib.Path(__file__).resolve().parents[2]


# A CPU has no Triton, which sparsify takes where it is installed. On a GPU all
# processes share one card, and none may take most of it from the start.
_ENVIRONMENT = {
    'cpu': {'SPARSIFY_DISABLE_TRITON': '1', 'JAX_PLATFORMS': 'cpu'},
    'gpu': {
        'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
        'JAX_PLATFORMS': 'cuda,cpu',
    },
}


@dataclasses.dataclass(frozen=True)
class Job:
  """What all implementations are given."""

  problem: pathlib.Path
  device: str
  precision: str


class Resident:
  """One implementation in its process."""

  def __init__(
      self, name: str, python: str, job: Job, *, root: pathlib.Path = _ROOT
  ):
    self._name = name
    module = 'experiments.benchmarking.worker'
    given = (name, str(job.problem), job.device, job.precision)
    try:
      self._process = subprocess.Popen(
          [python, '-m', module, *given],
          cwd=root,
          env=os.environ | _ENVIRONMENT[job.device] | {'PYTHONPATH': str(root)},
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
      )
    except OSError as error:
      raise errors.UserError(f'--peers_python={python}: {error}') from error

  def _answer(self) -> dict[str, float]:
    line = self._process.stdout.readline()
    if not line:
      raise errors.UserError(
          f'{self._name} ended with code {self._process.wait()}; what it said'
          ' stands above. Is it installed where --peers_python is?'
      )
    return json.loads(line)

  def _ask(self, line: str) -> dict[str, float]:
    try:
      print(line, file=self._process.stdin, flush=True)
    except BrokenPipeError:
      pass  # It has ended: told below.
    return self._answer()

  def prepare(self) -> None:
    """Waits for its imports; has it compile and take its first steps."""
    self._answer()
    self._ask('')

  def turn(self, steps: int) -> dict[str, float]:
    """Has it take steps; returns seconds and what else they report."""
    return self._ask(str(steps))

  def gradient_error(self) -> float:
    """Has it compare its gradients with automatic differentiation."""
    return self._ask('gradient_error')['gradient_error']

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()


@contextlib.contextmanager
def all_of(
    pythons: Mapping[str, str], job: Job
) -> Iterator[dict[str, Resident]]:
  """Starts an implementation a name, to be prepared; ends them all.

  They import side by side. Preparing is up to the caller, one after another:
  who tries out kernels while others compute may choose a slow one.
  """
  with contextlib.ExitStack() as stack:
    processes = {}
    for name, python in pythons.items():
      processes[name] = Resident(name, python, job)
      stack.callback(processes[name].close)
    yield processes
