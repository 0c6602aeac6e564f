"""Checkpoints that are verified whenever they are read.

A checkpoint is a directory whose name is its step. It holds the arrays of the
state, and a JSON record with the step, the digest of each array and `meta`, the
caller's own record. Readers try checkpoints from the newest to the oldest until
one verifies.

Orbax writes and reads the arrays, asynchronously, atomically and on any
topology, with `save_checkpointables_async` and `load` of its v1 API. Its
managers (v0 `CheckpointManager`, v1 `training.Checkpointer`) are not used. They
trust any directory whose name is the highest number, and do not save a step
that is lower than an existing one. Orbax also loads flipped bytes without an
error, casts dtypes silently, and reports a failed save only if the caller waits
for it. Therefore this module checks digests and dtypes, and waits for every
save.
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

from absl import logging

from jumprelu import errors, extras, processes
from jumprelu.files import digests
from jumprelu.ops import array_digests
from jumprelu.training import checkpoint_reading
from jumprelu.training.checkpoint_config import Config

with extras.imports():
  from etils import epath
  from orbax.checkpoint import v1 as ocp


class Checkpointer:
  """Saves and restores the state of one run.

  All processes must call each method together. Only the run that holds the
  directory's lock may create a `Checkpointer`, because it removes the temporary
  directories of killed saves. All other readers use `checkpoint_reading`.
  """

  def __init__(
      self,
      directory: str | os.PathLike[str],
      config: Config,
      *,
      branch: int = 0,
  ):
    """Removes the temporary directories of killed saves.

    Args:
      directory: The folder of the checkpoints.
      config: The frequency and number of checkpoints.
      branch: A step. Besides the newest checkpoints, the newest one up to this
        step is kept, from which the run can be extended.
    """
    self._branch = branch
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
    except (RuntimeError, errors.FullDiskError) as e:
      if exc_value is None:
        raise
      # Only logged, so that the caller gets the error of the `with` block.
      logging.error('%s', e)

  def steps(self) -> list[int]:
    """Returns the sorted steps of finished saves with non-empty directories."""
    return checkpoint_reading.steps(self._directory)

  def save(self, step: int, state: Any, *, meta: Mapping[str, Any]) -> None:
    """Waits for the previous save, and starts a save.

    The arrays may be donated as soon as this method returns, because they have
    been copied by then. A second save of the same step does nothing.

    Args:
      step: The step of the state.
      state: The pytree of arrays.
      meta: The caller's record, as values that JSON can hold.

    Raises:
      NumericalError: the state is not finite. Nothing is written, because this
        checkpoint would replace a good one.
      DataError: the directory holds a checkpoint of this or a later step.
      FullDiskError: the previous save, or the start of this one, failed because
        the disk is full.
      RuntimeError: it failed for another reason.
    """
    self.wait()
    if step == self._last_step:
      return
    leaves = digests.named_leaves(state)
    records, not_finite = digests.leaf_records(
        leaves, parts_of=array_digests.parts
    )
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
      raise self._failed(step, e) from e
    self._pending = (step, response)

  def wait(self) -> None:
    """Waits for the running save; raises an error of `save` if it failed."""
    if self._pending is None:
      return
    step, response = self._pending
    self._pending = None
    try:
      response.result()
    except Exception as e:
      raise self._failed(step, e) from e
    self._last_step = step
    logging.info('checkpoint %d: committed', step)
    # Old checkpoints are removed only after the commit, because a run that is
    # killed before would resume from the newest of them.
    if processes.is_main():
      steps = self.steps()
      kept = max((s for s in steps if s <= self._branch), default=None)
      for old in steps[: -self._config.keep]:
        if old != kept:
          self._path(old).rmtree()

  def remove_after(self, step: int) -> None:
    """Removes the checkpoints of later steps, so that the run goes back."""
    self.wait()
    if processes.is_main():
      for later in self.steps():
        if later > step:
          self._path(later).rmtree()
    processes.barrier('gone back')
    self._last_step = -1

  def close(self) -> None:
    """Waits for the running save; raises an error of `save` if it failed."""
    self.wait()

  def latest_verified(
      self, abstract_state: Any
  ) -> tuple[Any, dict[str, Any]] | None:
    """Returns (state, meta) of the newest checkpoint that verifies.

    Returns None if the directory has no checkpoint. Newer checkpoints that do
    not verify are renamed STEP.corrupt, and never deleted.

    Args:
      abstract_state: Passed to `checkpoint_reading.restore`.

    Raises:
      UserError, DataError: as `checkpoint_reading.restore`.
      FullDiskError, RuntimeError: the running save failed.
    """
    self.wait()
    restored = checkpoint_reading.restore(self._directory, abstract_state)
    if restored is None:
      return None
    self._set_aside(restored.damaged)
    self._last_step = restored.meta['step']
    return restored.state, restored.meta

  def _failed(self, step: int, error: Exception) -> Exception:
    """Returns the error of a save that `error` ended."""
    cause = checkpoint_reading.root_cause(error)
    # tensorstore has this code for a full disk and for a used-up quota.
    if errors.is_full_disk(error) or 'RESOURCE_EXHAUSTED' in cause:
      return errors.FullDiskError(
          f'{self._directory}: no room for checkpoint {step} ({cause}); make'
          ' room there, then run the same command again, which resumes at the'
          ' newest checkpoint'
      )
    return RuntimeError(f'checkpoint {step}: {cause}')

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
      path.rmdir()  # Empty, because `steps` did not list it.

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
