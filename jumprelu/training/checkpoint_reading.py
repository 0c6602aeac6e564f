"""Checkpoints read back and verified, without changing a byte of them.

Whoever reads a run beside its training uses this module: nothing is removed,
renamed or locked. Only `checkpoint.Checkpointer`, which a process makes while
it holds the run's lock, changes the directory.
"""

from collections.abc import Mapping
import logging as python_logging
import os
import re
from typing import Any, NamedTuple

from absl import logging
import jax

from jumprelu import errors, extras, processes
from jumprelu.array_typing import Array
from jumprelu.files import digests

with extras.imports():
  from etils import epath
  from orbax.checkpoint import v1 as ocp


class Restored(NamedTuple):
  """A verified checkpoint and the newer ones that were passed over."""

  state: Any
  meta: dict[str, Any]  # That it was saved with, `step` added.
  damaged: tuple[int, ...]


def steps(directory: epath.Path) -> list[int]:
  """Returns the steps whose directory holds something, sorted."""
  if not directory.exists():
    return []
  return sorted(
      int(path.name)
      for path in directory.iterdir()
      if _is_step(path) and _holds_something(path) and not is_unfinished(path)
  )


def is_unfinished(path: epath.Path) -> bool:
  """Whether a save is writing in this directory, or was killed there."""
  if '.orbax-checkpoint-tmp' in path.name:
    return True
  # A store of objects renames no directory: there orbax writes in the final
  # place and adds this file at the end.
  on_store = str(path).startswith('gs://') and _is_step(path)
  return on_store and not (path / 'commit_success.txt').exists()


def restore(
    directory: str | os.PathLike[str], abstract_state: Any
) -> Restored | None:
  """Returns the newest checkpoint that verifies, or None where none exists.

  Every process calls it. A training may save and remove checkpoints meanwhile.

  Args:
    directory: The folder of the checkpoints.
    abstract_state: the state's pytree of arrays or of ShapeDtypeStructs with
      shardings, which may be other ones than the checkpoint was saved with.

  Raises:
    errors.UserError: the checkpoint is sound but of another configuration.
    errors.DataError: checkpoints exist, but none verifies.
  """
  quieten_orbax()
  directory = epath.Path(directory)
  wanted = digests.abstract_leaves(abstract_state)
  listed, faults = None, {}
  # Process 0's list: another may see an older one. It is read again where all
  # its steps failed, because a training may have replaced them meanwhile.
  while (newest := processes.from_main(steps(directory)[:-65:-1])) != listed:
    listed, faults = newest, {}
    for step in listed:
      verdict, leaves, meta = _try(directory / str(step), step, wanted)
      if verdict.kind == _INCOMPATIBLE:
        raise errors.UserError(
            f'{directory / str(step)} is of another configuration:'
            f' {verdict.why}'
        )
      if verdict.kind == _SOUND:
        treedef = jax.tree.structure(abstract_state)
        state = treedef.unflatten(leaves[name] for name in wanted)
        return Restored(state, meta, tuple(faults))
      faults[step] = verdict.why
      logging.warning('%s is damaged: %s', directory / str(step), verdict.why)
  if directory.exists() and any(map(_looks_like_step, directory.iterdir())):
    why = '; '.join(f'{step}: {fault}' for step, fault in faults.items())
    raise errors.DataError(
        f'{directory}: none of its checkpoints can be restored'
        f' ({why or "empty directories"}); nothing was changed. Mend one, or'
        ' start afresh in another directory'
    )
  return None


def root_cause(error: BaseException) -> str:
  """Returns the innermost error in one line: orbax wraps it in layers."""
  while (inner := error.__cause__ or error.__context__) is not None:
    error = inner
  return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'


def quieten_orbax() -> None:
  """Drops the fifty lines orbax logs for each save, keeps its warnings."""
  python_logging.getLogger('absl').addFilter(_not_orbax_chatter)


def _try(
    path: epath.Path, step: int, wanted: dict[str, jax.ShapeDtypeStruct]
) -> tuple['_Verdict', dict[str, Array], dict[str, Any]]:
  """Reads one checkpoint; all processes return the same verdict."""
  records, leaves, meta = {}, {}, {}
  try:
    with _reading_alone():
      sealed = ocp.metadata(path).custom_metadata
      records, meta = digests.unseal(sealed, step)
      if difference := digests.difference(records, wanted):
        verdict = _Verdict(_INCOMPATIBLE, difference)
      else:
        leaves = _load(path, wanted)
        verdict = _Verdict(_SOUND)
  except (MemoryError, PermissionError):
    raise  # says nothing about the checkpoint
  except Exception as e:
    verdict = _Verdict(_CORRUPT, root_cause(e))
  verdict = _worst_of_all(verdict)
  if verdict.kind == _SOUND:
    actual, _ = digests.leaf_records(leaves)
    changed = [name for name in wanted if actual[name] != records[name]]
    if changed:
      verdict = _Verdict(_CORRUPT, f'the digest of {changed[0]} differs')
  return verdict, leaves, meta


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


def _holds_something(path: epath.Path) -> bool:
  try:
    return any(path.iterdir())
  except FileNotFoundError:
    return False  # A training has just removed it.


def _looks_like_step(path: epath.Path) -> bool:
  number = _step_number(path.name.partition('.corrupt')[0])
  return number is not None and not is_unfinished(path)


def _step_number(name: str) -> int | None:
  return int(name) if re.fullmatch('[0-9]{1,9}', name) else None


def _worst_of_all(verdict: _Verdict) -> _Verdict:
  kinds = processes.from_all(verdict.kind)
  worst = max(kinds)
  elsewhere = _Verdict(worst, f'process {kinds.index(worst)} cannot read it')
  return verdict if verdict.kind == worst else elsewhere


def _not_orbax_chatter(record: python_logging.LogRecord) -> bool:
  chatter = f'{os.sep}orbax{os.sep}' in record.pathname
  return record.levelno >= python_logging.WARNING or not chatter
