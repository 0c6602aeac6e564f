"""Read-only access to checkpoints, which are verified when they are read.

This module removes, renames and locks no file, so it can read a run that is
still training. Only `checkpoint.Checkpointer`, which needs the lock of the run,
changes the directory.
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import functools
import gc
import logging as python_logging
import os
import re
import sys
from typing import Any, NamedTuple
import warnings

from absl import logging
import jax
import jax.numpy as jnp

from jumprelu import errors, extras, processes
from jumprelu.array_typing import Array
from jumprelu.files import digests, output
from jumprelu.ops import array_digests

with extras.imports():
  from etils import epath
  from orbax.checkpoint import v1 as ocp


# Ends of the names of leaves that older checkpoints lack. They are then zero.
_LATER = ('.failing',)


class Restored(NamedTuple):
  """A verified checkpoint, and the newer damaged ones that were skipped."""

  state: Any
  meta: dict[str, Any]  # The `meta` of the save, with `step` added.
  damaged: tuple[int, ...]  # The steps of the skipped checkpoints.


def steps(directory: epath.Path) -> list[int]:
  """Returns the sorted steps of finished saves with non-empty directories."""
  if not directory.exists():
    return []
  return sorted(
      int(path.name)
      for path in directory.iterdir()
      if _is_step(path) and _is_not_empty(path) and not is_unfinished(path)
  )


def is_unfinished(path: epath.Path) -> bool:
  """Returns whether the save to this directory is running or was killed."""
  if '.orbax-checkpoint-tmp' in path.name:
    return True
  # Object stores cannot rename directories, so orbax writes to the final path
  # and adds the file commit_success.txt at the end.
  on_store = str(path).startswith('gs://') and _is_step(path)
  return on_store and not (path / 'commit_success.txt').exists()


def restore(
    directory: str | os.PathLike[str], abstract_state: Any
) -> Restored | None:
  """Returns the newest checkpoint that verifies, or None if none exists.

  All processes call this function together. At most 64 checkpoints of a listing
  are tried. A run may save and remove checkpoints meanwhile.

  Args:
    directory: The folder of the checkpoints.
    abstract_state: The state's pytree of arrays or ShapeDtypeStructs. The state
      is restored in their shardings, which may differ from those of the save.

  Raises:
    UserError: the record of a checkpoint is intact, but its arrays have other
      names, shapes or dtypes than `abstract_state`.
    DataError: checkpoints exist, but none verifies.
    TemporaryError: the storage of a checkpoint does not answer.
  """
  quieten_orbax()
  directory = epath.Path(directory)
  wanted = digests.abstract_leaves(abstract_state)
  listed, faults = None, {}
  # All processes use the list of process 0, because others may see an older
  # list. If no step in the list verifies, the list is read again, because a run
  # may have replaced these checkpoints in the meantime.
  while (newest := processes.from_main(steps(directory)[:-65:-1])) != listed:
    listed, faults = newest, {}
    for step in listed:
      verdict, leaves, meta = _try(directory / str(step), step, wanted)
      if verdict.kind == _INCOMPATIBLE:
        raise errors.UserError(
            f'{directory / str(step)} is of another configuration:'
            f' {verdict.why}; resume with the config of the run'
        )
      if verdict.kind == _UNREADABLE:
        raise errors.TemporaryError(
            f'{directory / str(step)}: cannot be read at the moment'
            f' ({verdict.why}); nothing was changed. Run the same command again;'
            f' if the error stays, rename the folder to {step}.corrupt to resume'
            ' from an older one'
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
        f' ({why or "empty or renamed directories"}); nothing was changed.'
        ' Repair one, or train in another directory'
    )
  return None


def root_cause(error: BaseException) -> str:
  """Returns the innermost error as one line, because orbax nests errors."""
  while (inner := error.__cause__ or error.__context__) is not None:
    error = inner
  return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'


def quieten_orbax() -> None:
  """Silences the fifty lines that orbax logs per save, but not its warnings.

  Its errors, with hundreds of lines of stacks, are raised as well, and are
  therefore logged with --debug only.
  """
  python_logging.getLogger('absl').addFilter(_is_not_chatter)


def _try(
    path: epath.Path, step: int, wanted: dict[str, jax.ShapeDtypeStruct]
) -> tuple['_Verdict', dict[str, Array], dict[str, Any]]:
  """Returns the verdict on one checkpoint, its arrays and its meta.

  The kind of the verdict is the same in all processes.
  """
  records, leaves, meta = {}, {}, {}
  with _quiet():
    try:
      with _reading_alone():
        sealed = ocp.metadata(path).custom_metadata
        records, meta = digests.unseal(sealed, step)
        stored = {
            name: leaf
            for name, leaf in wanted.items()
            if name in records or not name.endswith(_LATER)
        }
        if difference := digests.difference(records, stored):
          verdict = _Verdict(_INCOMPATIBLE, difference)
        else:
          leaves = _load(path, stored)
          verdict = _Verdict(_SOUND)
    except (MemoryError, PermissionError):
      raise  # The checkpoint itself may be sound.
    except Exception as e:
      kind = _UNREADABLE if _is_temporary(e) else _CORRUPT
      verdict = _Verdict(kind, root_cause(e))
    if verdict.kind == _CORRUPT:
      gc.collect()  # The error held objects whose deletion prints.
  verdict = _worst_of_all(verdict)
  if verdict.kind == _SOUND:
    actual, _ = digests.leaf_records(leaves, parts_of=array_digests.parts)
    changed = [name for name in actual if actual[name] != records[name]]
    if changed:
      verdict = _Verdict(_CORRUPT, f'the digest of {changed[0]} differs')
    leaves |= {
        name: _zeros(wanted[name]) for name in wanted.keys() - leaves.keys()
    }
  return verdict, leaves, meta


_SOUND, _CORRUPT, _INCOMPATIBLE, _UNREADABLE = 0, 1, 2, 3

# Failures of storage that prove no damage: numbers of the operating system, and
# codes of tensorstore.
_ERRNOS = frozenset((
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM,
    errno.EMFILE, errno.ENFILE, errno.ENETUNREACH, errno.ECONNRESET,
))  # fmt: skip
_CODES = re.compile(
    '(UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|CANCELLED'
    '|PERMISSION_DENIED|UNAUTHENTICATED): '
)
_OS_ERROR = re.compile(r"os_error_code='(\d{1,4})'")


def _is_temporary(error: BaseException) -> bool:
  """Returns whether storage failed, so that a checkpoint may be sound."""
  while (inner := error.__cause__ or error.__context__) is not None:
    error = inner
  text = str(error)
  code = _OS_ERROR.search(text)
  number = int(code[1]) if code else getattr(error, 'errno', None)
  return number in _ERRNOS or _CODES.search(text) is not None


class _Verdict(NamedTuple):
  """The result of verifying a checkpoint."""

  kind: int
  why: str = ''


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences the tracebacks of libraries that read a damaged checkpoint.

  They print them in threads and when objects are deleted, besides the error
  that they raise.
  """
  if logging.get_verbosity() >= logging.INFO:  # --debug
    yield
    return
  loggers = [python_logging.getLogger(name) for name in ('absl', 'asyncio')]
  before = [logger.disabled for logger in loggers]
  hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
  with output.native_dropped(), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for logger in loggers:
      logger.disabled = True
    try:
      yield
    finally:
      for logger, value in zip(loggers, before, strict=True):
        logger.disabled = value
      sys.unraisablehook = hook


def _reading_alone() -> ocp.Context:
  """Returns a context in which orbax does not wait for other processes.

  By default orbax waits for all processes at the end of a read. If the part of
  one process were damaged, the other processes would then wait for ever.
  """
  process = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = process
  context.multiprocessing.active_processes = {process}
  context.multiprocessing.barrier_sync_key_prefix = f'process_{process}'
  return context


def _load(
    path: epath.Path, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Array]:
  """Returns the arrays; raises ValueError if a dtype or shape differs."""
  stored = ocp.metadata(path, checkpointable_name='state').metadata
  for name, leaf in wanted.items():
    if (stored[name].dtype, stored[name].shape) != (leaf.dtype, leaf.shape):
      raise ValueError(f'the array metadata of {name} differ')
  return ocp.load(path, dict(wanted), checkpointable_name='state')


def _zeros(leaf: jax.ShapeDtypeStruct) -> Array:
  make = functools.partial(jnp.zeros, leaf.shape, leaf.dtype)
  return jax.jit(make, out_shardings=leaf.sharding)()


def _is_step(path: epath.Path) -> bool:
  # No save makes a directory such as '007'.
  return path.name == str(_step_number(path.name)) and path.is_dir()


def _is_not_empty(path: epath.Path) -> bool:
  try:
    return any(path.iterdir())
  except FileNotFoundError:
    return False  # A run has just removed it.


def _looks_like_step(path: epath.Path) -> bool:
  """Returns whether a path is a checkpoint, even an empty or damaged one."""
  number = _step_number(path.name.partition('.corrupt')[0])
  return number is not None and not is_unfinished(path)


def _step_number(name: str) -> int | None:
  return int(name) if re.fullmatch('[0-9]{1,9}', name) else None


def _worst_of_all(verdict: _Verdict) -> _Verdict:
  """Returns this process's verdict, or a worse one of another process."""
  kinds = processes.from_all(verdict.kind)
  worst = max(kinds)
  elsewhere = _Verdict(worst, f'process {kinds.index(worst)} cannot read it')
  return verdict if verdict.kind == worst else elsewhere


def _is_not_chatter(record: python_logging.LogRecord) -> bool:
  """Returns whether a record is not from orbax, or to be shown."""
  if f'{os.sep}orbax{os.sep}' not in record.pathname:
    return True
  debugs = logging.get_verbosity() >= logging.INFO
  if record.levelno > python_logging.WARNING:
    return debugs
  return record.levelno == python_logging.WARNING
