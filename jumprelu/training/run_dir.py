"""The directory of a run.

  config.json     the config; a different one is refused
  env.json        versions, devices and flags, which affect rounding
  suite.json      the members, and the scale of each tap
  starts.json     the step of the last start, and how often in a row a start at
                  this step has failed
  STATUS.json     state, step and counts; updated during the run
  metrics.jsonl   one line per segment, up to the last one (`metrics_file`
                  describes its fields). When a run resumes, the lines of later
                  steps than the checkpoint's are moved to
                  metrics.discarded.jsonl
  checkpoints/    the state, by step
  incidents/      a record for each rollback (`rollback`)
  added/          members that were added, as runs (`addition`)
  branches/       the former run, if it was extended (`extension`)
  tensorboard/    event files with the same numbers (--tensorboard)
  profile/        a trace by JAX's profiler (--profile_steps)
  run.lock        locked by the process that trains

Only process 0 writes files; checkpoints are written by all processes together.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import os
import platform
import time
from typing import Any, NoReturn

from absl import logging
import jax

import jumprelu
from jumprelu import errors, extras
from jumprelu.files import (
    dotted,
    durable,
    folder_kinds,
    formats,
    json_files,
    locks,
    remote,
    versions,
)
from jumprelu.training import config as config_lib
from jumprelu.training import resume

with extras.imports():
  from etils import epath

# A run that has failed this number of times after starts at one step may not
# start there again, so that launchers do not restart it for ever.
MAX_FAILURES = 3

_PACKAGES = ('jax', 'jaxlib', 'flax', 'gemma', 'grain', 'numpy')

# Files that a run directory may hold before its config is written.
_FIRST = {'run.lock', 'config.json.partial'}


class RunDir:
  """Reads and writes the files of one run."""

  def __init__(self, path: str | os.PathLike[str]):
    expanded = epath.Path(path).expanduser()
    # `absolute` would change gs://a/b to a local path.
    self.path = expanded if expanded.is_absolute() else expanded.absolute()
    self.checkpoints = self.path / 'checkpoints'
    self._is_main = jax.process_index() == 0
    self._starts: dict[str, Any] = {}
    self._started = False

  @contextlib.contextmanager
  def claim(self, config: config_lib.TrainConfig) -> Iterator[None]:
    """Creates or checks the directory, and locks it while the context is open.

    A directory belongs to its config once it holds suite.json. Until then the
    config may be replaced by another one. Paths of text and model that have
    moved are written by `write_config`, after their content was compared.

    Raises:
      UserError: the directory is not writable, in use, inside a release, holds
        a run of another config, or holds other files.
      DataError: a file of the directory is damaged, or of a newer format.
    """
    written = self._check(config)
    # Read before `note_start`, because in that call process 0 may write the
    # file before others read it. Between the two calls `processes.agree` waits
    # for all processes.
    self._starts = self._read_advisory('starts.json')
    if not self._is_main:
      yield
      return
    where = f'--out={self.path}'

    def refuse() -> NoReturn:
      raise errors.UserError(f'{where}: another process is training there')

    with locks.hold(self.path / 'run.lock', where=where, on_busy=refuse):
      self.write_config(written)
      yield

  def write_config(self, config: config_lib.TrainConfig) -> None:
    """Writes config.json."""
    self._write('config.json', config_lib.to_record(config))

  def read_config(self) -> config_lib.TrainConfig:
    """Returns `read_config` of the directory."""
    return read_config(self.path)

  def is_done(self, steps: int) -> bool:
    """Returns whether the run is done and step `steps` has a checkpoint."""
    status = self._read_advisory('STATUS.json')
    done = (status.get('state'), status.get('step')) == ('done', steps)
    return done and (self.checkpoints / str(steps)).exists()

  def has_checkpoint(self) -> bool:
    """Returns whether there is a checkpoint, verified or not."""
    return bool(self.checkpoint_steps())

  def checkpoint_steps(self) -> list[str]:
    """Returns the names of the folders of checkpoints, verified or not."""
    return [path.name for path in self.checkpoints.glob('[0-9]*')]

  def read(self, name: str) -> dict[str, Any]:
    """Returns the content of a JSON file of the run; {} if it is missing."""
    return json_files.read_json(self.path / name, missing_ok=True)

  def _read_advisory(self, name: str) -> dict[str, Any]:
    """Returns the content of a JSON file; {} if it is missing or damaged.

    Only for files that results do not depend on, so that damage to them does
    not keep a run from being resumed.
    """
    try:
      return self.read(name)
    except errors.DataError as error:
      logging.warning('%s; read as if it were missing', error)
      return {}

  def read_suite(self) -> dict[str, Any]:
    """Returns `read_suite` of the directory."""
    return read_suite(self.path)

  def note_start(self, step: int) -> None:
    """Records a start at `step` in starts.json.

    Raises:
      NumericalError: the last `MAX_FAILURES` starts at this step failed.
    """
    before = self._starts.get('count', 0)
    again = self._starts.get('step') == step and type(before) is int
    count = before if again else 0
    if count >= MAX_FAILURES:
      raise errors.NumericalError(
          f'{self.path}: failed {MAX_FAILURES} times after a start at step'
          f' {step} without saving a later step; find the cause, then delete'
          ' starts.json to resume'
      )
    self._starts = {'step': step, 'count': count}
    self._started = True
    self._write('starts.json', self._starts)

  def note_end(self, error: BaseException) -> None:
    """Counts the start in starts.json if the run failed by itself.

    A signal, a full disk and a kill from outside do not count.
    """
    outside = isinstance(error, KeyboardInterrupt)
    if (
        self._started
        and not outside
        and errors.exit_code(error) != errors.EXIT_TRY_AGAIN
    ):
      count = self._starts['count'] + 1
      self._write('starts.json', self._starts | {'count': count})

  def write_env(self, **extra: Any) -> None:
    """Writes env.json: versions, devices, flags, and `extra`."""
    self._write('env.json', environment() | extra)

  def write_suite(self, suite: Mapping[str, Any]) -> None:
    """Writes suite.json."""
    stamp = formats.stamp(formats.Kind.RUN_SUITE)
    self._write('suite.json', stamp | dict(suite), seal=True)

  def write_status(self, state: str, **fields: Any) -> None:
    """Writes STATUS.json: the state of the run, `fields`, and the time."""
    now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
    self._write('STATUS.json', {'state': state, **fields, 'updated': now})

  def write_failure(
      self, error: BaseException, fields: Mapping[str, Any]
  ) -> None:
    """Writes the error or the signal that ended a start to STATUS.json.

    Other fields of STATUS.json, such as the step of an earlier start, are kept;
    `fields` are their values if they are missing.
    """
    before = self._read_advisory('STATUS.json')
    for name in ('state', 'updated'):
      before.pop(name, None)
    interrupted = isinstance(error, KeyboardInterrupt)
    record = {
        **fields,
        **before,
        'exit_code': errors.exit_code(error),
        'error': 'interrupted' if interrupted else str(error),
    }
    self.write_status('preempted' if interrupted else 'failed', **record)

  def incidents(self) -> list[dict[str, Any]]:
    """Returns the records of all rollbacks, in their order."""
    folder = self.path / 'incidents'
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    numbers = sorted(int(n[:-5]) for n in names if n[:-5].isdecimal())
    return [self.read(f'incidents/{number}.json') for number in numbers]

  def write_incident(self, number: int, record: Mapping[str, Any]) -> None:
    """Writes the record of a rollback."""
    if self._is_main:
      (self.path / 'incidents').mkdir(exist_ok=True)
      self._write(f'incidents/{number}.json', dict(record), seal=True)

  def append_metrics(self, record: Mapping[str, Any]) -> None:
    """Appends a line to metrics.jsonl; non-finite numbers become null."""
    if self._is_main:
      json_files.append_line(self.path / 'metrics.jsonl', record)

  def sync_metrics(self) -> None:
    """Waits until metrics.jsonl is on the disk, before a checkpoint is saved.

    The metrics of a checkpoint's steps then survive the loss of the computer.
    """
    path = self.path / 'metrics.jsonl'
    if self._is_main and path.exists() and not remote.is_remote(path):
      durable.sync(path)

  def truncate_metrics(self, step: int) -> None:
    """Moves the lines of steps after `step` to metrics.discarded.jsonl."""
    path = self.path / 'metrics.jsonl'
    if not self._is_main or not path.exists():
      return
    kept, discarded, last = [], [], 0
    # Bytes that are no text are replaced, so that their line is moved.
    text = path.read_bytes().decode('utf-8', 'replace')
    for line in text.splitlines(keepends=True):
      is_kept = _step_of(line) <= step
      (kept if is_kept else discarded).append(line)
      last = _step_of(line) if is_kept else last
    if last < step:
      logging.warning(
          '%s: ends at step %s, before the checkpoint of step %d; its later'
          ' lines were lost with their computer',
          path, last, step,
      )  # fmt: skip
    if discarded:
      with (self.path / 'metrics.discarded.jsonl').open('a') as f:
        f.writelines(line.rstrip('\n') + '\n' for line in discarded)
      json_files.write_text(path, ''.join(kept))

  def _check(self, config: config_lib.TrainConfig) -> config_lib.TrainConfig:
    """Returns the config to write, with the former paths of moved inputs.

    Raises UserError unless a run of `config` may use the directory.
    """
    folder_kinds.refuse_inside_release('out', self.path)
    if not self.path.exists():
      return config
    if not self.path.is_dir():
      raise errors.UserError(f'--out={self.path}: not a directory')
    # Listed before config.json is looked for, because process 0 of this run may
    # write that file in between.
    others = {p.name for p in self.path.iterdir()} - _FIRST
    if not (self.path / 'config.json').exists():
      if others:
        raise errors.UserError(
            f'--out={self.path}: neither empty nor a run directory (it holds'
            f' {sorted(others)[0]}); choose another'
        )
      return config
    before = self.read_config()
    # Without suite.json no step was computed, so another run may start.
    if not (self.path / 'suite.json').exists():
      return config
    if differing := resume.differences(before, config):
      cure = 'choose another directory, or the same config'
      if config.tokens > before.tokens:
        cure += ', or extend it (jumprelu train --extend)'
      raise errors.UserError(
          f'--out={self.path}: holds a run of another config:'
          f' {"; ".join(differing)}; {cure}'
      )
    paths = resume.moved(before, config)
    return dotted.replace(
        config, {path: getattr(before, path) for path in paths}
    )

  def _write(self, name: str, value: Any, *, seal: bool = False) -> None:
    if self._is_main:
      json_files.write_json(self.path / name, value, seal=seal)


def read_config(path: str | os.PathLike[str]) -> config_lib.TrainConfig:
  """Returns the config of the run in a directory; uses no device.

  Raises:
    MissingInputError: the directory holds no config.json.
    UserError: the directory is a release, or the config is invalid.
    DataError: the format of the config is newer than this version.
  """
  folder = epath.Path(path).expanduser()
  folder_kinds.want_run(folder)
  file = folder / 'config.json'
  if not file.exists():
    raise errors.MissingInputError(
        f'{folder}: no run directory (no config.json in it)'
    )
  # Bytes that are no text are replaced, so that the error names the file.
  text = file.read_bytes().decode('utf-8', 'replace')
  return config_lib.from_json(text, where=str(file))


def read_suite(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the content of suite.json; {} if it is missing. Uses no device."""
  file = epath.Path(path).expanduser() / 'suite.json'
  suite = json_files.read_json(file, missing_ok=True)
  if not suite:
    return suite
  return formats.migrate(formats.Kind.RUN_SUITE, suite, where=str(file))


def environment() -> dict[str, Any]:
  """Returns versions, devices and flags, by name."""
  return {
      'jumprelu': jumprelu.__version__,
      'python': platform.python_version(),
      'versions': versions.of_packages(_PACKAGES),
      'platform': jax.default_backend(),
      'device_kind': jax.devices()[0].device_kind,
      'devices': jax.device_count(),
      'processes': jax.process_count(),
      'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


def _step_of(line: str) -> int | float:
  """Returns the step of a line of metrics; infinity for an incomplete line."""
  try:
    step = json.loads(line)['step']
  except (ValueError, KeyError, TypeError, RecursionError):
    return math.inf
  # U+FFFD replaces damaged bytes, which may be anywhere in a line.
  is_whole = isinstance(step, int | float) and '\ufffd' not in line
  return step if is_whole else math.inf
