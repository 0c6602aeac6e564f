"""Errors that a user can fix, with exit codes for launchers.

Exit codes: 42 stopped by SIGTERM, 2 bad flags or config, 65 damaged data, 66
missing input, 70 numerical failure, 75 try again (a full disk, processes that do
not reach each other), 130 interrupted. A launcher may retry a process that fails
with 75 or with another code. A message is one line that names the file or field,
and what to do.
"""

import errno

EXIT_PREEMPTED = 42
EXIT_TRY_AGAIN = 75
EXIT_INTERRUPTED = 130
# The operating system raises these for wrong paths and missing permissions.
PATH_ERRORS = (PermissionError, NotADirectoryError, IsADirectoryError)
# Those of a loop of links and of too long a name have no class.
_PATH_ERRNOS = (errno.ELOOP, errno.ENAMETOOLONG)


class UserError(ValueError):
  """An invalid flag or config."""

  exit_code = 2


class DataError(UserError):
  """A file that is damaged or does not match its manifest."""

  exit_code = 65


class MissingInputError(UserError):
  """A model, corpus or run directory that does not exist."""

  exit_code = 66


class MissingExtraError(ModuleNotFoundError, UserError):
  """A missing library that one of this package's extras installs."""


class TemporaryError(UserError):
  """A failure after which the same command may succeed."""

  exit_code = EXIT_TRY_AGAIN


class FullDiskError(TemporaryError):
  """A folder without room for a file."""


class NumericalError(RuntimeError):
  """A numerical failure from which training cannot recover."""

  exit_code = 70


class Interrupted(KeyboardInterrupt):
  """A signal that ends a command; not caught by handlers of errors."""

  def __init__(self, exit_code: int = EXIT_INTERRUPTED):
    super().__init__('interrupted')
    self.exit_code = exit_code


def exit_code(error: BaseException) -> int:
  """Returns the exit code of a process that `error` ends; 1 for a crash."""
  if isinstance(error, KeyboardInterrupt):
    return getattr(error, 'exit_code', EXIT_INTERRUPTED)
  if is_full_disk(error) or is_unreached(error):
    return EXIT_TRY_AGAIN
  if is_wrong_path(error):
    return UserError.exit_code
  return getattr(error, 'exit_code', 1)


def temporary(error: BaseException) -> str:
  """Returns the message of an error after which to try again; '' for others."""
  if is_full_disk(error):
    place = getattr(error, 'filename', None)
    where = f'{place}: ' if place else ''
    return (
        f'{where}the disk is full ({error}); make room in the folders of --out'
        ' and of JUMPRELU_CACHE, then run the same command again'
    )
  if is_unreached(error):
    return (
        'the processes of the job did not reach each other in time'
        f' ({str(error)[:200]}); run the same command again in all of them'
    )
  return ''


def is_unreached(error: BaseException) -> bool:
  """Returns whether the processes of a job did not connect in time.

  A connection that was lost later is not meant, because the other process may
  have failed by itself.
  """
  text = str(error)
  return 'DEADLINE_EXCEEDED' in text and any(
      name in text for name in ('CoordinationService', 'Gloo', 'PjRT_Client')
  )


def is_wrong_path(error: BaseException) -> bool:
  """Returns whether an error is that of a wrong path or missing permission."""
  return isinstance(error, PATH_ERRORS) or (
      isinstance(error, OSError) and error.errno in _PATH_ERRNOS
  )


def is_full_disk(error: BaseException) -> bool:
  """Returns whether an error, or its cause, is that of a full disk.

  Libraries in C++ raise errors without a number, which have the system's text.
  """
  if isinstance(error, FullDiskError) or (
      isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
  ):
    return True
  texts = ('No space left on device', 'Disk quota exceeded')
  if any(text in str(error) for text in texts):
    return True
  return error.__cause__ is not None and is_full_disk(error.__cause__)
