"""Checkpoints that are verified when read, not trusted.

A checkpoint is one directory, named by its step: the state's arrays, and one
JSON record with the step, the caller's meta and each array's digest. Reading
walks from the newest step to the oldest until one verifies.

Orbax writes and reads the arrays (asynchronously, atomically, on any topology)
through the plain `save_checkpointables_async` and `load` of its v1 API. Its
managers (v0 `CheckpointManager`, v1 `training.Checkpointer`) are left out on
purpose: they take any directory with a number for a name to be the latest
step and refuse to save behind it, where this module decides which step to
trust. Orbax also loads flipped bytes without an error, casts dtypes silently,
and reports a failed save only to whoever asks: all that is mended here.
"""

from collections.abc import Mapping, Sequence
import logging as python_logging
import os
import re
from typing import Any, NamedTuple

from absl import logging
import jax

from jumprelu import errors, extras, processes
from jumprelu.array_typing import Array
from jumprelu.files import digests
from jumprelu.training.checkpoint_config import Config

with extras.imports():
  from etils import epath
  from orbax.checkpoint import v1 as ocp

_TMP_MARK = '.orbax-checkpoint-tmp'


class Checkpointer:
  """Saves and restores one run's state. Every process calls every method."""

  def __init__(self, directory: str | os.PathLike[str], config: Config):
    self._directory = epath.Path(directory)  # Absolute, as orbax wants it.
    self._config = config
    self._pending: tuple[int, Any] | None = None
    self._last_step = -1
    _quieten_orbax()
    if processes.is_main():
      self._directory.mkdir(parents=True, exist_ok=True)
      for path in self._directory.iterdir():
        if _TMP_MARK in path.name:  # what a killed save left behind
          path.rmtree()
    processes.barrier('checkpointer ready')

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, exc_type, exc_value, traceback) -> None:
    try:
      self.close()
    except RuntimeError as e:
      if exc_value is None:
        raise
      logging.error('%s', e)  # and let the first error through

  def steps(self) -> list[int]:
    """Returns the steps that have a directory with something in it, sorted."""
    return sorted(
        int(path.name)
        for path in self._directory.iterdir()
        if _is_step(path) and any(path.iterdir())
    )

  def save(self, step: int, state: Any, *, meta: Mapping[str, Any]) -> None:
    """Starts saving; what went wrong with the save before is raised here.

    The arrays have been copied when this returns, so that they may be donated.
    Saving the same step again does nothing.

    Raises:
      errors.NumericalError: the state is not finite; nothing is written, for
        such a checkpoint would only push a good one out.
    """
    self.wait()
    if step == self._last_step:
      return
    leaves = digests.named_leaves(state)
    records, not_finite = digests.leaf_records(leaves)
    if not_finite:
      raise errors.NumericalError(
          f'step {step}: {", ".join(not_finite)} not finite, nothing saved'
      )
    self._refuse_to_go_back(step)
    logging.info('checkpoint %d: saving', step)
    try:
      response = ocp.save_checkpointables_async(
          self._path(step),
          {'state': leaves},
          custom_metadata=digests.seal(step, records, meta),
      )
    except Exception as e:
      raise RuntimeError(f'checkpoint {step}: {_root_cause(e)}') from e
    self._pending = (step, response)

  def wait(self) -> None:
    """Waits until the running save is committed; raises if it failed."""
    if self._pending is None:
      return
    step, response = self._pending
    self._pending = None
    try:
      response.result()
    except Exception as e:
      raise RuntimeError(f'checkpoint {step}: {_root_cause(e)}') from e
    self._last_step = step
    logging.info('checkpoint %d: committed', step)
    # Only now: until the new one is committed the old ones are all there is.
    if processes.is_main():
      for old in self.steps()[: -self._config.keep]:
        self._path(old).rmtree()

  def close(self) -> None:
    """Waits for the running save; raises if it failed."""
    self.wait()

  def latest_verified(
      self, abstract_state: Any
  ) -> tuple[Any, dict[str, Any]] | None:
    """Restores the newest checkpoint that verifies, or None in a new place.

    Newer checkpoints that fail are renamed `N.corrupt`, never deleted.

    Args:
      abstract_state: the state's pytree of arrays or of ShapeDtypeStructs with
        shardings, which may be other ones than the checkpoint was saved with.

    Returns:
      The state and the meta it was saved with, `step` added.

    Raises:
      errors.UserError: the checkpoint is sound but of another configuration.
      errors.DataError: there are checkpoints, none verifies.
    """
    self.wait()
    wanted = digests.abstract_leaves(abstract_state)
    faults = {}
    # Process 0's list: another may see an older one.
    for step in processes.from_main(self.steps()[:-65:-1]):
      verdict, leaves, meta = self._try(step, wanted)
      if verdict.kind == _INCOMPATIBLE:
        raise errors.UserError(
            f'{self._path(step)} is of another configuration: {verdict.why}'
        )
      if verdict.kind == _SOUND:
        self._set_aside(list(faults))
        self._last_step = step
        treedef = jax.tree.structure(abstract_state)
        return treedef.unflatten(leaves[name] for name in wanted), meta
      faults[step] = verdict.why
      logging.warning('%s is damaged: %s', self._path(step), verdict.why)
    if any(_looks_like_step(path) for path in self._directory.iterdir()):
      why = '; '.join(f'{step}: {fault}' for step, fault in faults.items())
      raise errors.DataError(
          f'{self._directory}: none of its checkpoints can be restored'
          f' ({why or "empty directories"}); nothing was changed. Mend one, or'
          ' start afresh in another directory'
      )
    return None

  def _path(self, step: int) -> epath.Path:
    return self._directory / str(step)

  def _refuse_to_go_back(self, step: int) -> None:
    newest = max(self.steps(), default=-1)
    if newest >= step:
      raise errors.DataError(
          f'{self._directory} already holds checkpoint {newest}, step {step}'
          ' would be lost behind it: resume, or use another directory'
      )
    path = self._path(step)
    if processes.is_main() and path.exists():
      path.rmdir()  # empty, or `steps` would have listed it

  def _try(
      self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]
  ) -> tuple['_Verdict', dict[str, Array], dict[str, Any]]:
    """Reads one checkpoint; all processes return the same verdict."""
    records, leaves, meta = {}, {}, {}
    try:
      with _reading_alone():
        sealed = ocp.metadata(self._path(step)).custom_metadata
        records, meta = digests.unseal(sealed, step)
        if difference := digests.difference(records, wanted):
          verdict = _Verdict(_INCOMPATIBLE, difference)
        else:
          leaves = _load(self._path(step), wanted)
          verdict = _Verdict(_SOUND)
    except (MemoryError, PermissionError):
      raise  # says nothing about the checkpoint
    except Exception as e:
      verdict = _Verdict(_CORRUPT, _root_cause(e))
    verdict = _worst_of_all(verdict)
    if verdict.kind == _SOUND:
      found, _ = digests.leaf_records(leaves)
      changed = [name for name in wanted if found[name] != records[name]]
      if changed:
        verdict = _Verdict(_CORRUPT, f'the digest of {changed[0]} differs')
    return verdict, leaves, meta

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Renames damaged steps, only once an older one has been restored."""
    if processes.is_main():
      for step in steps:
        aside, number = f'{step}.corrupt', 1
        while (self._directory / aside).exists():
          number += 1
          aside = f'{step}.corrupt{number}'
        self._path(step).rename(self._directory / aside)
        logging.warning('%s set aside as %s', self._path(step), aside)
    processes.barrier('set aside')


_SOUND, _CORRUPT, _INCOMPATIBLE = 0, 1, 2


class _Verdict(NamedTuple):
  kind: int
  why: str = ''


def _reading_alone() -> ocp.Context:
  # Were orbax to wait for all processes at the end of a read, one that finds
  # its part damaged would leave the others waiting.
  own = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = own
  context.multiprocessing.active_processes = {own}
  context.multiprocessing.barrier_sync_key_prefix = f'process_{own}'
  return context


def _load(
    path: epath.Path, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Array]:
  stored = ocp.metadata(path, checkpointable_name='state').metadata
  for name, leaf in wanted.items():
    if (stored[name].dtype, stored[name].shape) != (leaf.dtype, leaf.shape):
      raise ValueError(f'the array metadata of {name} differ')
  return ocp.load(path, dict(wanted), checkpointable_name='state')


def _is_step(path: epath.Path) -> bool:
  # '007' is not a name that a save gives.
  return path.name == str(_step_number(path.name)) and path.is_dir()


def _looks_like_step(path: epath.Path) -> bool:
  return _step_number(path.name.partition('.corrupt')[0]) is not None


def _step_number(name: str) -> int | None:
  return int(name) if re.fullmatch('[0-9]{1,9}', name) else None


def _worst_of_all(verdict: _Verdict) -> _Verdict:
  kinds = processes.from_all(verdict.kind)
  worst = max(kinds)
  elsewhere = _Verdict(worst, f'process {kinds.index(worst)} cannot read it')
  return verdict if verdict.kind == worst else elsewhere


def _root_cause(error: BaseException) -> str:
  """The innermost error in one line: orbax wraps what went wrong in layers."""
  while (inner := error.__cause__ or error.__context__) is not None:
    error = inner
  return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'


def _not_orbax_chatter(record: python_logging.LogRecord) -> bool:
  chatter = f'{os.sep}orbax{os.sep}' in record.pathname
  return record.levelno >= python_logging.WARNING or not chatter


def _quieten_orbax() -> None:
  """Drops the fifty lines orbax logs for each save, keeps its warnings."""
  python_logging.getLogger('absl').addFilter(_not_orbax_chatter)
