"""Checkpoints that are verified whenever they are read.

A checkpoint is one directory, named by its step. It holds the state's arrays
and one JSON record with the step, the caller's meta and each array's digest.
Readers walk from the newest step to the oldest until one verifies.

Orbax writes and reads the arrays (asynchronously, atomically, on any topology)
through `save_checkpointables_async` and `load` of its v1 API. Its managers (v0
`CheckpointManager`, v1 `training.Checkpointer`) are not used, because they
trust any directory whose name is the highest number, and refuse to save an
earlier step. Orbax also loads flipped bytes without an error, casts
dtypes silently, and reports a failed save only if the caller waits for it. This
module checks digests and dtypes, and waits for every save.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

from absl import logging

from jumprelu import errors, extras, processes
from jumprelu.files import digests
from jumprelu.training import checkpoint_reading
from jumprelu.training.checkpoint_config import Config

with extras.imports():
  from etils import epath
  from orbax.checkpoint import v1 as ocp


class Checkpointer:
  """Saves and restores one run's state. Every process calls every method.

  It may be created only by the run that holds the directory's lock, because it
  removes the temporary directories of killed saves. All other readers use
  `checkpoint_reading`.
  """

  def __init__(self, directory: str | os.PathLike[str], config: Config):
    self._directory = epath.Path(directory)  # Orbax needs an absolute path.
    self._config = config
    self._pending: tuple[int, Any] | None = None
    self._last_step = -1
    checkpoint_reading.quieten_orbax()
    if processes.is_main():
      self._directory.mkdir(parents=True, exist_ok=True)
      for path in self._directory.iterdir():
        if checkpoint_reading.is_unfinished(path):  # From a killed save.
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
      # The caller gets the error that ended the block instead.
      logging.error('%s', e)

  def steps(self) -> list[int]:
    """Returns the steps whose directories are not empty, sorted."""
    return checkpoint_reading.steps(self._directory)

  def save(self, step: int, state: Any, *, meta: Mapping[str, Any]) -> None:
    """Starts a save, after waiting for the previous one.

    The arrays may be donated as soon as this method returns, because they have
    been copied by then. A second save of the same step does nothing.

    Args:
      step: The step of the state.
      state: The pytree of arrays.
      meta: The caller's record, JSON.

    Raises:
      errors.NumericalError: the state is not finite. Nothing is written,
        because such a checkpoint would evict a good one.
      RuntimeError: the previous save failed.
    """
    self.wait()
    if step == self._last_step:
      return
    leaves = digests.named_leaves(state)
    records, not_finite = digests.leaf_records(leaves)
    if not_finite:
      raise errors.NumericalError(
          f'step {step}: {", ".join(not_finite)} not finite; nothing was saved'
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
      raise RuntimeError(
          f'checkpoint {step}: {checkpoint_reading.root_cause(e)}'
      ) from e
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
      raise RuntimeError(
          f'checkpoint {step}: {checkpoint_reading.root_cause(e)}'
      ) from e
    self._last_step = step
    logging.info('checkpoint %d: committed', step)
    # Old checkpoints are removed only after the commit, because until then the
    # newest of them is the one to resume from.
    if processes.is_main():
      for old in self.steps()[: -self._config.keep]:
        self._path(old).rmtree()

  def close(self) -> None:
    """Waits for the running save; raises if it failed."""
    self.wait()

  def latest_verified(
      self, abstract_state: Any
  ) -> tuple[Any, dict[str, Any]] | None:
    """Returns the newest checkpoint that verifies, or None if none exists.

    The errors are those of `checkpoint_reading.restore`. Newer checkpoints that
    fail to verify are renamed `N.corrupt`, never deleted.

    Args:
      abstract_state: As of `checkpoint_reading.restore`.
    """
    self.wait()
    restored = checkpoint_reading.restore(self._directory, abstract_state)
    if restored is None:
      return None
    self._set_aside(restored.damaged)
    self._last_step = restored.meta['step']
    return restored.state, restored.meta

  def _path(self, step: int) -> epath.Path:
    return self._directory / str(step)

  def _refuse_to_go_back(self, step: int) -> None:
    """Raises DataError if the directory holds this step or a later one."""
    newest = max(self.steps(), default=-1)
    if newest >= step:
      raise errors.DataError(
          f'{self._directory}: already holds checkpoint {newest}, so step'
          f' {step} is not saved; resume the run, or use another directory'
      )
    path = self._path(step)
    if processes.is_main() and path.exists():
      path.rmdir()  # It is empty, because `steps` did not list it.

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Renames the directories of damaged checkpoints."""
    if processes.is_main():
      for step in steps:
        aside, number = f'{step}.corrupt', 1
        while (self._directory / aside).exists():
          number += 1
          aside = f'{step}.corrupt{number}'
        self._path(step).rename(self._directory / aside)
        logging.warning('%s set aside as %s', self._path(step), aside)
    processes.barrier('set aside')
