"""The directory of a run: what it was asked, what it is, where it stands.

  config.json     the config; another one is refused
  env.json        versions, devices, flags: what the bits depend on
  suite.json      the members and the scale of each site, written once
  starts.json     the step of the last start, and how many began there
  STATUS.json     state, step, counts; rewritten as the run goes on
  metrics.jsonl   a line a segment; cut back to the checkpoint on resuming
  checkpoints/    the state, by step

Only process 0 writes.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import os
import platform
import time
from typing import Any, NoReturn

import jax

import jumprelu
from jumprelu import errors, extras
from jumprelu.files import (
    dotted,
    folder_kinds,
    formats,
    json_files,
    locks,
    versions,
)
from jumprelu.training import config as config_lib

with extras.imports():
  from etils import epath

# Fields that may differ when a run is resumed: they change where, how fast and
# how safely it runs, and what is done with it later, not what is computed.
SOFT = (
    'checkpoint.',
    'mesh.',
    'eval.',
    'stream.lm_sequences',
    'stream.batches_per_dispatch',
    'corpus.cache_dir',
    'corpus.data_dir',
    'backend',
    'recipe',
    'store',
)

# A run that starts so often at one step, and never comes to save another, will
# not come further the next time either: launchers must hear of it.
MAX_STARTS = 3

_PACKAGES = ('jax', 'jaxlib', 'flax', 'gemma', 'grain', 'numpy')

# What a run directory holds before it has its config, or if it was killed then.
_FIRST = {'run.lock', 'config.json.partial'}


class RunDir:
  """Reads and writes the files of one run."""

  def __init__(self, path: str | os.PathLike[str]):
    given = epath.Path(path).expanduser()
    # Of gs://a/b, `absolute` would make a local path.
    self.path = given if given.is_absolute() else given.absolute()
    self.checkpoints = self.path / 'checkpoints'
    self._is_main = jax.process_index() == 0
    self._starts: dict[str, Any] = {}

  @contextlib.contextmanager
  def claim(self, config: config_lib.TrainConfig) -> Iterator[None]:
    """Makes the directory, or checks that it is this config's; locks it.

    A directory is a config's once its run has begun to compute.
    """
    self._check(config)
    # Here, because all processes agree on more before one of them writes.
    self._starts = self.read('starts.json')
    if not self._is_main:
      yield
      return
    where = f'--out={self.path}'

    def refuse() -> NoReturn:
      raise errors.UserError(f'{where}: another process is training there')

    with locks.hold(self.path / 'run.lock', where=where, on_busy=refuse):
      self._write('config.json', config_lib.to_record(config))
      yield

  def read_config(self) -> config_lib.TrainConfig:
    """Reads the config that the run was started with."""
    path = self.path / 'config.json'
    folder_kinds.want_run(self.path)
    if not path.exists():
      raise errors.MissingInputError(
          f'{self.path}: no run directory (no config.json in it)'
      )
    return config_lib.from_json(path.read_text(), where=str(path))

  def is_done(self, steps: int) -> bool:
    """Whether the run has ended with all its steps in a checkpoint."""
    status = self.read('STATUS.json')
    done = (status.get('state'), status.get('step')) == ('done', steps)
    return done and (self.checkpoints / str(steps)).exists()

  def read(self, name: str) -> dict[str, Any]:
    """Reads a JSON file of the run; {} where there is none."""
    return json_files.read_json(self.path / name, missing_ok=True)

  def read_suite(self) -> dict[str, Any]:
    """Reads members and scales; {} where there are none yet."""
    where = str(self.path / 'suite.json')
    suite = self.read('suite.json')
    return suite and formats.migrate(formats.Kind.RUN_SUITE, suite, where=where)

  def note_start(self, step: int) -> None:
    """Counts a start at `step`; gives up when there were too many in a row."""
    again = self._starts.get('step') == step
    count = self._starts.get('count', 0) + 1 if again else 1
    if count > MAX_STARTS:
      raise errors.NumericalError(
          f'{self.path}: started {MAX_STARTS} times at step {step} and saved no'
          ' later one; find out why, then delete starts.json to go on'
      )
    self._write('starts.json', {'step': step, 'count': count})

  def write_env(self, **extra: Any) -> None:
    """Records what the run's bits depend on besides its config."""
    self._write('env.json', environment() | extra)

  def write_suite(self, suite: Mapping[str, Any]) -> None:
    """Records members and scales."""
    stamp = formats.stamp(formats.Kind.RUN_SUITE)
    self._write('suite.json', stamp | dict(suite))

  def write_status(self, state: str, **fields: Any) -> None:
    """Says where the run stands."""
    now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
    self._write('STATUS.json', {'state': state, **fields, 'updated': now})

  def append_metrics(self, record: Mapping[str, Any]) -> None:
    """Adds a line; numbers that are not finite become null."""
    if self._is_main:
      json_files.append_line(self.path / 'metrics.jsonl', record)

  def cut_metrics(self, step: int) -> None:
    """Moves the lines behind `step` to metrics.discarded.jsonl."""
    path = self.path / 'metrics.jsonl'
    if not self._is_main or not path.exists():
      return
    kept, cut = [], []
    for line in path.read_text().splitlines(keepends=True):
      (kept if _step_of(line) <= step else cut).append(line)
    if cut:
      with (self.path / 'metrics.discarded.jsonl').open('a') as f:
        f.writelines(line.rstrip('\n') + '\n' for line in cut)
      json_files.write_text(path, ''.join(kept))

  def _check(self, config: config_lib.TrainConfig) -> None:
    folder_kinds.refuse_inside_release('out', self.path)
    if not self.path.exists():
      return
    if not self.path.is_dir():
      raise errors.UserError(f'--out={self.path}: not a directory')
    # Looked at before config.json: another process may be about to write it.
    others = {p.name for p in self.path.iterdir()} - _FIRST
    if not (self.path / 'config.json').exists():
      if others:
        raise errors.UserError(
            f'--out={self.path}: neither empty nor a run directory (it holds'
            f' {sorted(others)[0]}); choose another'
        )
      return
    differing = differences(self.read_config(), config)
    # Where a run came no further than its flags, another may start.
    if differing and (self.path / 'suite.json').exists():
      raise errors.UserError(
          f'--out={self.path}: holds a run of another config:'
          f' {"; ".join(differing)}; choose another directory, or the same'
          ' config'
      )

  def _write(self, name: str, value: Any) -> None:
    if self._is_main:
      json_files.write_json(self.path / name, value)


def differences(
    old: config_lib.TrainConfig, new: config_lib.TrainConfig
) -> list[str]:
  """The fields in which two configs compute something else, as text."""
  before, after = dotted.leaves(old), dotted.leaves(new)
  return [
      f'{path} was {before[path].value!r}, is {leaf.value!r}'
      for path, leaf in after.items()
      if leaf.value != before[path].value and not dotted.is_among(path, SOFT)
  ]


def environment() -> dict[str, Any]:
  """Versions, devices and flags."""
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
  """The step of a line of metrics; a line cut short is behind every step."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return math.inf
