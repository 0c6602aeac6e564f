"""Rows that cannot be read: an error, or skipped up to a share and counted."""

from typing import Protocol, runtime_checkable

from jumprelu.errors import DataError, UserError


class BadRows:
  """The numbers of rows of one pass, and the largest share of bad ones.

  Attributes:
    total: The number of rows so far.
    skipped: The number of those that were skipped.
  """

  def __init__(self, share: float):
    self._share = share
    self.start()

  def start(self) -> None:
    """Starts a new pass."""
    self.total = self.skipped = 0
    self._first = ''
    self._in_file = self._skipped_in_file = 0

  def good(self) -> None:
    """Counts a row that was read."""
    self.total += 1
    self._in_file += 1

  def bad(self, error: UserError) -> None:
    """Counts a row that cannot be read; raises `error` if none may be bad."""
    if not self._share:
      raise type(error)(
          f'{error}; or skip such rows with --corpus.max_bad_rows=0.01'
      )
    self.good()
    self.skipped += 1
    self._skipped_in_file += 1
    self._first = self._first or str(error)

  def end_file(self, where: str) -> None:
    """Ends a file.

    Raises:
      DataError: too large a share of the file's rows is bad.
    """
    bad, rows = self._skipped_in_file, self._in_file
    self._in_file = self._skipped_in_file = 0
    if bad > self._share * rows:
      raise DataError(
          f'{where}: {bad:,} of {rows:,} rows cannot be read, more than'
          f' --corpus.max_bad_rows={self._share:g} of them; the first:'
          f' {self._first}'
      )

  def __str__(self) -> str:
    """Returns the numbers and the first bad row; '' if there is none."""
    if not self.skipped:
      return ''
    return (
        f'{self.skipped:,} of {self.total:,} rows skipped, because they cannot'
        f' be read; the first: {self._first}'
    )


@runtime_checkable
class HasBadRows(Protocol):
  """A source of documents that counts bad rows."""

  bad_rows: BadRows
