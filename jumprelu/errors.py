"""Errors that a user can mend, each with the exit code launchers rely on.

Exit codes: 2 bad flags or config, 65 damaged data, 66 missing input, 70
numerical failure after every remedy. Anything else that ends a process may be
tried again. Messages are one line: they name the file or field and the cure.
"""


class UserError(ValueError):
  """A flag or config that cannot work."""

  exit_code = 2


class DataError(UserError):
  """A file that is damaged or does not match its manifest."""

  exit_code = 65


class MissingInputError(UserError):
  """A model, corpus or run directory that is not there."""

  exit_code = 66


class MissingExtraError(ModuleNotFoundError, UserError):
  """A library that is not installed; an extra of the distribution has it."""


class NumericalError(RuntimeError):
  """Training that cannot go on."""

  exit_code = 70
