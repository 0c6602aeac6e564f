"""Resident processes: each runs `worker.py` for one implementation."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess

from jumprelu import errors

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# If Triton is installed, sparsify would use it on a CPU too, and fail. On a GPU
# JAX must not reserve most of the memory, because all processes share it.
_ENVIRONMENT = {
    'cpu': {'SPARSIFY_DISABLE_TRITON': '1', 'JAX_PLATFORMS': 'cpu'},
    'gpu': {
        'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
        'JAX_PLATFORMS': 'cuda,cpu',
    },
}


@dataclasses.dataclass(frozen=True)
class Job:
  """The problem, the device and the precision of all implementations."""

  # The folder to which `problem.save` has written.
  problem: pathlib.Path
  device: str
  precision: str


class Resident:
  """One implementation in a separate process.

  Args:
    name: The implementation: `ours-BACKEND`, `matmuls`, `encoder` or a peer.
    python: The interpreter of the process.
    job: The problem, the device and the precision.
    root: The checkout whose code the process runs.
    flag: The flag that names the interpreter, for errors.
  """

  def __init__(
      self,
      name: str,
      python: str,
      job: Job,
      *,
      root: pathlib.Path = _ROOT,
      flag: str = '--peers_python',
  ):
    self._name = name
    self._flag = flag
    module = 'experiments.benchmarking.worker'
    arguments = (name, str(job.problem), job.device, job.precision)
    try:
      self._process = subprocess.Popen(
          [python, '-m', module, *arguments],
          cwd=root,
          env=os.environ | _ENVIRONMENT[job.device] | {'PYTHONPATH': str(root)},
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
      )
    except OSError as error:
      raise errors.UserError(
          f'{flag}={python}: cannot be run ({error.strerror}); name an'
          ' interpreter of Python'
      ) from error

  def _answer(self) -> dict[str, float]:
    line = self._process.stdout.readline()
    if not line:
      raise errors.UserError(
          f'{self._name} ended with code {self._process.wait()}; its messages'
          f' are above. Is it installed for {self._flag}?'
      )
    return json.loads(line)

  def _ask(self, line: str) -> dict[str, float]:
    try:
      print(line, file=self._process.stdin, flush=True)
    except BrokenPipeError:
      pass  # `_answer` raises, because the process has ended.
    return self._answer()

  def prepare(self) -> None:
    """Waits until the process has imported, compiled and run two steps."""
    self._answer()
    self._ask('')

  def trial(self, steps: int) -> dict[str, float]:
    """Runs a trial; returns its seconds, memory, L0 and loss."""
    return self._ask(str(steps))

  def gradient_error(self) -> float:
    """Returns the largest error of the gradients, against float64."""
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
  """Yields the implementations by name, in running processes; ends them all.

  The processes import in parallel. The caller must call `prepare` for one
  process after another, because an implementation that measures its kernels
  while other processes compute may choose a slow kernel.
  """
  with contextlib.ExitStack() as stack:
    processes = {}
    for name, python in pythons.items():
      processes[name] = Resident(name, python, job)
      stack.callback(processes[name].close)
    yield processes
