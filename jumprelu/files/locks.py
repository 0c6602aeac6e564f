"""An exclusive lock on a file, which the system frees when a process dies."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
from typing import Any

from jumprelu import errors


@contextlib.contextmanager
def hold(
    path: Any, *, where: str, on_busy: Callable[[], None], cure: str = ''
) -> Iterator[None]:
  """Holds the lock on a file while the context is open; creates the file.

  A remote file has no lock, so the same job must not be launched twice.

  Args:
    path: The lock's file, local or epath's.
    where: How an error names the place, for instance '--out=DIR'.
    on_busy: Called if another process holds the lock. If the call returns, the
      process waits for the lock.
    cure: The user's cure if the file cannot be created.

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
    if hasattr(file, 'fileno'):
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        on_busy()
        fcntl.flock(file, fcntl.LOCK_EX)
    yield
