"""Exclusive locks on files, which the system frees when a process dies."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import socket
from typing import Any

from jumprelu import errors
from jumprelu.files import remote


def was_freed(path: Any) -> bool:
  """Returns whether the last process that held a lock no longer holds it.

  Returns False if that process was on another computer, because the locks of
  other computers may not be visible on a shared disk. The same is true of files
  in remote storage. The lock is held for an instant.
  """
  try:
    file = path.open('r')
  except OSError:
    return False
  with file:
    descriptor = remote.descriptor(file)
    if descriptor is None or file.read() != socket.gethostname():
      return False
    try:
      fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
      return False
    return True


@contextlib.contextmanager
def hold(
    path: Any, *, where: str, on_busy: Callable[[], None], cure: str = ''
) -> Iterator[None]:
  """Holds the lock on a file while the context is open; creates the file.

  A file in remote storage is created but cannot be locked, so two processes
  that use it do not notice each other.

  Args:
    path: The file, as a local path or epath's.
    where: The name of the place in error messages, for instance '--out=DIR'.
    on_busy: Called if another process holds the lock. It may raise an error; if
      it returns, this process waits for the lock.
    cure: Advice for the user if the file cannot be created.

  Raises:
    UserError: The file cannot be created.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open('w')
  except OSError as error:
    raise errors.UserError(
        f'{where}: cannot write there ({error.strerror}){cure and f"; {cure}"}'
    ) from None
  with file:
    descriptor = remote.descriptor(file)
    if descriptor is not None:
      try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        on_busy()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
      # For `was_freed`.
      file.write(socket.gethostname())
      file.flush()
    yield
