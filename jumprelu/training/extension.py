"""Extension of a run to more tokens (`jumprelu train --extend`).

The schedules of an extended run are those of a run that was configured so from
the start: its warm-ups have the former numbers of steps, and the decay of the
learning rate covers the same share of the longer run. Up to the step at which
the former decay began, both schedules are equal. The run branches at the newest
checkpoint up to that step (`checkpoint.Checkpointer` keeps it), so that its
result is bit for bit that of the longer run.

The former run with its later checkpoints is kept in `branches/TOKENS` of the
run directory, as a complete run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, processes
from jumprelu.array_typing import Float
from jumprelu.files import dotted, json_files
from jumprelu.training import checkpoint_reading, run_dir, schedules
from jumprelu.training import config as config_lib

# Steps of the schedules that are computed at once.
_PART = 4096
_WARMUPS = ('lr_warmup', 'sparsity_warmup')
# The files of a run besides its checkpoints that its branch needs, too.
_FILES = (
    'config.json',
    'suite.json',
    'env.json',
    'STATUS.json',
    'metrics.jsonl',
)
# The fields in which an extended run differs from the shorter one.
_LENGTHS = ('tokens', *(f'optim.{name}_fraction' for name in _WARMUPS))


def extended(
    before: config_lib.TrainConfig, changes: Mapping[str, Any]
) -> config_lib.TrainConfig:
  """Returns the config of a run that is extended.

  Args:
    before: The config of the run so far.
    changes: The changes by dotted path, with `tokens` and fields that do not
      affect results. With the tokens of `before`, nothing is extended.

  Raises:
    UserError: the tokens are missing or fewer, or a change is invalid.
  """
  if 'tokens' not in changes:
    raise errors.UserError('--extend: set --tokens, the new total')
  config = dotted.replace(before, changes)
  if config.steps < before.steps:
    raise errors.UserError(
        f'--tokens={config.tokens:_}: --extend needs more than the'
        f' {before.tokens:_} of the run'
    )
  if config.steps == before.steps:
    return dotted.replace(config, {'tokens': before.tokens})
  fractions = {
      f'optim.{name}_fraction': _same_length(
          getattr(before.optim, f'{name}_fraction'), before.steps, config.steps
      )
      for name in _WARMUPS
      if getattr(before.optim, f'{name}_steps') is None
  }
  return dotted.replace(config, fractions)


def branch_step(
    before: config_lib.TrainConfig, after: config_lib.TrainConfig
) -> int:
  """Returns the last step up to which the state of both runs is the same.

  This is the first step at which a schedule differs, or the last step of the
  shorter run.
  """
  old, new = (_multipliers(config, before.steps) for config in (before, after))
  differs = np.any(old != new, axis=0)
  return int(np.argmax(differs)) if differs.any() else before.steps


def _multipliers(
    config: config_lib.TrainConfig, steps: int
) -> Float[np.ndarray, 'schedules steps']:
  """Returns the multipliers of both schedules in the first steps."""

  def at(step):
    return (
        schedules.learning_rate_at(config.optim, step, config.steps),
        schedules.sparsity_at(config.optim, step, config.steps),
    )

  # Of the same length, so that its operations are compiled only once.
  parts = [
      np.stack(jax.vmap(at)(start + jnp.arange(_PART)))
      for start in range(0, steps, _PART)
  ]
  return np.concatenate(parts, axis=1)[:, :steps]


def branch(
    directory: run_dir.RunDir,
    after: config_lib.TrainConfig,
    *,
    on_phase: Callable[[str], None],
) -> None:
  """Lets the run in a directory continue with the config `after`.

  The caller has claimed the directory with `unextended(...)`. Nothing is
  deleted: later checkpoints than the branch are moved to `branches/TOKENS`. If
  the process is killed, the same call completes the move.

  Args:
    directory: The run directory.
    after: The result of `extended`.
    on_phase: Called with a line of text about the branch.

  Raises:
    UserError: all checkpoints are later than the step at which the schedules
      begin to differ.
  """
  before = directory.read_config()
  if before.steps < after.steps:
    _branch(directory, before, after, on_phase=on_phase)
  # Process 0 may have written the config before another process reads it.
  processes.barrier('extended')


def _branch(
    directory: run_dir.RunDir,
    before: config_lib.TrainConfig,
    after: config_lib.TrainConfig,
    *,
    on_phase: Callable[[str], None],
) -> None:
  last = branch_step(before, after)
  steps = checkpoint_reading.steps(directory.checkpoints)
  later = [step for step in steps if step > last]
  shared = [step for step in steps if step <= last]
  if later and not shared:
    raise errors.UserError(
        f'--extend: the schedules of {directory.path} depend on its length from'
        f' step {last} on, and its first checkpoint is of step {later[0]}. Train'
        f' in a new directory with --tokens={after.tokens:_}, or start there'
        f' from the trained SAEs with --init_from={directory.path}'
    )
  step = max(shared, default=0)
  place = directory.path / 'branches' / str(before.tokens)
  on_phase(
      f'extending the run from {before.tokens:,} to {after.tokens:,} tokens, at'
      f' step {step:,}'
      + (f'; its later checkpoints are moved to {place}' if later else '')
  )
  if processes.is_main():
    if later:
      _keep_branch(directory, place, later)
    _record(directory, {'tokens': [before.tokens, after.tokens], 'step': step})
    # Last, because until then the directory belongs to the shorter run.
    lengths = {path: _value(after, path) for path in _LENGTHS}
    directory.write_config(dotted.replace(before, lengths))


def unextended(
    config: config_lib.TrainConfig, before: config_lib.TrainConfig
) -> config_lib.TrainConfig:
  """Returns `config` with the length of `before`, to claim a directory."""
  return dotted.replace(config, {p: _value(before, p) for p in _LENGTHS})


def _record(directory: run_dir.RunDir, extension: dict[str, Any]) -> None:
  """Adds an extension to suite.json, if a run has started."""
  record = directory.read_suite()
  extensions = list(record.get('extensions', ()))
  if record and extension not in extensions:
    directory.write_suite(record | {'extensions': [*extensions, extension]})


def _keep_branch(
    directory: run_dir.RunDir, place: Any, later: Sequence[int]
) -> None:
  """Makes `place` a run directory with the later checkpoints."""
  (place / 'checkpoints').mkdir(parents=True, exist_ok=True)
  for name in _FILES:
    source = directory.path / name
    if source.exists():
      json_files.write_text(place / name, source.read_text())
  for step in later:
    number = str(step)
    (directory.checkpoints / number).rename(place / 'checkpoints' / number)


def _value(config: config_lib.TrainConfig, path: str) -> Any:
  return dotted.leaves(config)[path].value


def _same_length(fraction: float, before: int, after: int) -> float:
  """Returns the share of `after` steps with the length of one of `before`.

  Schedules round lengths to float32. Should the rounded lengths still differ,
  `branch_step` detects the first step with another value.
  """
  length = np.float32(fraction * before)
  share = fraction * before / after
  candidates = share, np.nextafter(share, 0.0), np.nextafter(share, 1.0)
  equal = [float(x) for x in candidates if np.float32(x * after) == length]
  return equal[0] if equal else share
