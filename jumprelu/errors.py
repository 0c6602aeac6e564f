"""Errors that a user can fix, with exit codes for launchers.

Exit codes: 2 bad flags or config, 65 damaged data, 66 missing input, 70
numerical failure. A launcher may retry a process that fails with any other
code. A message is one line that names the file or field, and what to do.
"""


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


class NumericalError(RuntimeError):
  """A numerical failure from which training cannot recover."""

  exit_code = 70
