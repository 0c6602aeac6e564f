"""Small training runs in child processes, and signals at random moments."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from jumprelu import errors
from jumprelu.run import preemption

# Name -> (number of processes, devices of each).
TOPOLOGIES = {
    'one_device': (1, 1),
    'two_devices': (1, 2),
    'four_devices': (1, 4),
    'two_processes': (2, 1),
}
_BLOCKS, _STEPS, _BATCH = 6, 16, 128
_WORDS = (
    'the of and a to in is you that it he was for on are as with his'.split()
)
# Within this time a run has ended by itself, also on a busy machine.
_PATIENCE = 900
# Starts at one step after which a run gives up are not reached by the soak.
_STARTS = 2
# A start-up takes about this long, in seconds.
_START = 12.0


@dataclasses.dataclass(frozen=True)
class Hit:
  """The effects of a signal.

  Attributes:
    signal: The name of the signal, '' if the run ended before one.
    aim: The moment at which it was sent.
    killed: Whether the process was ended by SIGKILL.
    saving: Whether a save was in flight.
    lost_steps: The steps that the next start repeats.
    problem: A wrong way to end, '' if there was none.
  """

  signal: str = ''
  aim: str = ''
  killed: bool = False
  saving: bool = False
  lost_steps: int = 0
  problem: str = ''


class Job:
  """A training run, which may be started several times."""

  def __init__(self, out: pathlib.Path, topology: str, folder: pathlib.Path):
    self.folder = folder
    self._out = out
    self._count, self._devices = TOPOLOGIES[topology]

  @contextlib.contextmanager
  def started(self):
    """Starts the processes; those that still run at the end are killed."""
    self.folder.parent.mkdir(parents=True, exist_ok=True)
    children = []
    with contextlib.ExitStack() as stack:
      log = stack.enter_context(tempfile.TemporaryFile())
      try:
        connected = stack.enter_context(_connected(self._count))
        for flags in connected:
          children.append(self._start(flags, log))
        yield children, log
      finally:
        for child in children:
          child.kill()
          child.wait()

  def finish(self) -> tuple[int, str]:
    """Runs to the end; returns the exit code and the output."""
    with self.started() as (children, log):
      codes = [_wait(child) for child in children]
      return next(filter(None, codes), 0), _read(log)

  def _start(self, flags: list[str], log: Any) -> subprocess.Popen:
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JUMPRELU_CACHE': str(self._out / 'cache'),
        # Programs are read from the disk, so that a start takes seconds.
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'XLA_FLAGS': (
            f'--xla_force_host_platform_device_count={self._devices}'
        ),
    }
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    _restore_interrupts()
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'jumprelu.run.main',
            'train',
            *self._flags(),
            *flags,
        ],
        env=environment,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

  def _flags(self) -> list[str]:
    values = {
        'out': self.folder,
        'data': _text(self._out),
        'layer': 1,
        'sites': 'resid_post,mlp_out',
        'widths': 32,
        'sparsity_coefficients': '1e-3,4e-3',
        'tokens': _BLOCKS * _STEPS * _BATCH,
        'corpus.sequence_length': 32,
        'stream.block_positions': _STEPS * _BATCH,
        'stream.batch': _BATCH,
        'stream.logical_shards': 8,
        'stream.lm_sequences': 8,
        'stream.batches_per_dispatch': 4,
        'stream.scale_tokens': 1024,
    }
    return [f'--{name}={value}' for name, value in values.items()]


def _restore_interrupts() -> None:
  """Lets children receive SIGINT.

  A shell without job control starts background commands with SIGINT ignored,
  which their children inherit.
  """
  signal.signal(signal.SIGINT, signal.default_int_handler)


def whole_run(out: pathlib.Path, topology: str) -> pathlib.Path:
  """Returns the folder of a run without signals, which is run if necessary."""
  folder = out / 'whole' / topology
  status = folder / 'STATUS.json'
  if not status.exists() or json.loads(status.read_text())['state'] != 'done':
    remove(folder)
    code, output = Job(out, topology, folder).finish()
    if code:
      raise RuntimeError(f'{topology}: exit {code}: {output[-2000:]}')
  return folder


def remove(folder: pathlib.Path) -> None:
  """Removes a run, if it exists."""
  shutil.rmtree(folder, ignore_errors=True)


def interrupted(job: Job, rng: random.Random) -> Hit:
  """Starts a run, sends a signal at a random moment and waits for the end."""
  before = _progress(job.folder)
  aim, is_reached = _aim(job.folder, rng, before)
  kind = rng.choice(
      ('KILL', 'KILL', 'KILL', 'TERM', 'TERM', 'INT', 'TERM_TERM', 'TERM_KILL')
  )
  with job.started() as (children, log):
    until = time.monotonic() + _PATIENCE
    while not is_reached():
      codes = [child.poll() for child in children]
      if all(code is not None for code in codes):
        # The run has ended before the moment came.
        wrong, output = [code for code in codes if code], _read(log)
        if not wrong or is_temporary(wrong[0], output):
          return Hit()
        return Hit(problem=f'exit {wrong[0]}: {output[-500:]}')
      if time.monotonic() > until:
        return Hit(problem=f'no end within {_PATIENCE} s: {_read(log)[-500:]}')
      time.sleep(0.005)
    saving = _is_saving(job.folder)
    _send(children, kind, rng)
    codes = [_wait(child) for child in children]
    problem = _problem(codes, kind, _read(log))
  done = all(code == 0 for code in codes)
  return Hit(
      signal=kind,
      aim=aim,
      killed=-signal.SIGKILL in codes,
      saving=saving,
      lost_steps=0 if done else _lost(job.folder),
      problem=problem,
  )


def _aim(folder: pathlib.Path, rng: random.Random, before: Any):
  """Returns a moment: its name, and a function that returns whether it has come."""
  kinds = ['start', 'time', 'save', 'save', 'segment', 'segment', 'partial']
  # A run gives up that never gets to a later step.
  if _count_of_starts(folder) >= _STARTS:
    kinds = ['save', 'segment']
  kind = rng.choice(kinds)
  started = time.monotonic()
  if kind in ('start', 'time'):
    delay = rng.uniform(0, _START) if kind == 'start' else rng.uniform(5, 40)
    return kind, lambda: time.monotonic() - started > delay
  if kind == 'save':
    first, delay = [0.0], rng.choice((0.0, 0.0, 0.02, 0.1))
    lines = before['lines'] + rng.randrange(3, 12)

    def in_save():
      if not first[0] and _lines(folder) >= lines and _is_saving(folder):
        first[0] = time.monotonic()
      return first[0] and time.monotonic() - first[0] >= delay

    return kind, in_save
  if kind == 'partial':
    return kind, lambda: any(folder.glob('*.partial'))
  lines = before['lines'] + rng.randrange(1, 16)
  return kind, lambda: _lines(folder) >= lines


def _send(
    children: list[subprocess.Popen], kind: str, rng: random.Random
) -> None:
  """Sends the signals to all processes, or SIGTERM to one of them."""
  for number, name in enumerate(kind.split('_')):
    if number:
      time.sleep(rng.choice((0.0, 0.1, 0.5, 2.0)))
    targets = [rng.choice(children)] if name == 'TERM' else children
    for child in targets:
      child.send_signal(getattr(signal, f'SIG{name}'))


def _problem(codes: list[int], kind: str, output: str) -> str:
  """Returns the exit code that the signals do not explain; '' if all do."""
  names = kind.split('_')
  allowed = {0}
  if 'KILL' in names:
    allowed.add(-signal.SIGKILL)
  if 'TERM' in names:
    # Before the handler is there, the signal ends the process.
    allowed |= {preemption.EXIT_PREEMPTED, -signal.SIGTERM}
  if 'INT' in names:
    allowed |= {130, -signal.SIGINT}
  wrong = [code for code in codes if code not in allowed]
  if wrong and is_temporary(wrong[0], output):
    return ''
  return f'{kind}: exit {wrong[0]}: {output[-1000:]}' if wrong else ''


def is_temporary(code: int, output: str) -> bool:
  """Returns whether processes did not reach each other, as on a busy machine."""
  return code == errors.EXIT_TRY_AGAIN and 'did not reach each other' in output


def _is_saving(folder: pathlib.Path) -> bool:
  return any((folder / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))


def _lines(folder: pathlib.Path) -> int:
  path = folder / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def _progress(folder: pathlib.Path) -> dict[str, int]:
  return {'lines': _lines(folder)}


def _lost(folder: pathlib.Path) -> int:
  """Returns the logged steps after the newest checkpoint."""
  path = folder / 'metrics.jsonl'
  if not path.exists():
    return 0
  steps = []
  for line in path.read_text().splitlines():
    with contextlib.suppress(ValueError):
      steps.append(json.loads(line)['step'])
  names = [p.name for p in (folder / 'checkpoints').glob('*')]
  saved = max((int(name) for name in names if name.isdigit()), default=0)
  return max(0, max(steps, default=0) - saved)


def _count_of_starts(folder: pathlib.Path) -> int:
  try:
    return json.loads((folder / 'starts.json').read_text()).get('count', 0)
  except (OSError, ValueError):
    return 0


def _wait(child: subprocess.Popen) -> int:
  try:
    return child.wait(_PATIENCE)
  except subprocess.TimeoutExpired:
    child.kill()
    child.wait()
    return 999


def _read(log: Any) -> str:
  log.seek(0)
  return log.read().decode('utf-8', 'replace')


def _text(out: pathlib.Path) -> pathlib.Path:
  """Returns a folder with documents of random words."""
  folder = out / 'text'
  if not folder.exists():
    partial = out / 'text.partial'
    partial.mkdir(exist_ok=True)
    rng = random.Random(0)
    for number in range(40):
      lines = [' '.join(rng.choices(_WORDS, k=12)) for _ in range(20)]
      (partial / f'{number}.txt').write_text('\n'.join(lines))
    partial.rename(folder)
  return folder


@contextlib.contextmanager
def _connected(count: int):
  """Yields the flags of each process of a job."""
  if count == 1:
    yield [[]]
    return
  # Bound until process 0 shares the port, so that no other process takes it.
  with socket.socket() as holder:
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(('127.0.0.1', 0))
    port = holder.getsockname()[1]
    yield [
        [
            '--process.mode=explicit',
            f'--process.coordinator_address=127.0.0.1:{port}',
            f'--process.num_processes={count}',
            f'--process.process_id={number}',
            '--process.heartbeat_timeout=10',
            # The other process may have been stopped before it connected.
            '--process.initialization_timeout=120',
        ]
        for number in range(count)
    ]
