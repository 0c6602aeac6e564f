"""Documents, sources of documents, and the split into train and held out."""

from collections.abc import Iterator
import hashlib
import itertools
from typing import Any, NamedTuple, Protocol, runtime_checkable

# The number of documents that `make_split` reads. Reading more is unnecessary,
# because one of these documents is always held out.
_LOOK_AHEAD = 64


class Document(NamedTuple):
  """A text with a name; names are unique within a source."""

  name: str
  text: str


@runtime_checkable
class Source(Protocol):
  """A source that yields the same documents in the same order in every pass."""

  # A short name for messages and for the caches' directory.
  name: str

  def documents(self) -> Iterator[Document]:
    """Yields all documents in order, without empty ones."""
    ...

  def describe(self) -> dict[str, Any]:
    """Returns fields that identify the documents; results record them."""
    ...

  def split_key(self, document: Document) -> str:
    """Returns the string whose hash decides if the document is held out."""
    ...

  def size(self) -> int:
    """Returns the approximate number of bytes of text, 0 if unknown."""
    ...

  def summary(self) -> str:
    """Returns the name and the known sizes, without reading the text."""
    ...


def sha256(text: str) -> str:
  """Returns the hex digest of a text, which may have lone surrogates."""
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


def is_held_out(key: str, percent: int) -> bool:
  """Returns whether the key's hash is in the lowest `percent` percent."""
  return int(sha256(key)[:16], 16) * 100 < percent * 2**64


class Split(NamedTuple):
  """The rule that decides from a document's key whether it is held out."""

  percent: int
  # The sha256 of a key that is held out at any percentage; '' for none.
  always: str = ''

  def holds_out(self, key: str) -> bool:
    """Returns whether the document with this key is held out."""
    return is_held_out(key, self.percent) or (
        bool(self.always) and sha256(key) == self.always
    )


def make_split(source: Source, percent: int) -> Split:
  """Returns a split by hash that holds out a document even in a small corpus.

  Only the first 64 documents are read. The one with the smallest hash among
  them is held out even if no hash is below the percentage. If they all have the
  same key, or if there is only one document, the percentage alone decides.
  """
  head = itertools.islice(source.documents(), _LOOK_AHEAD)
  keys = {source.split_key(d) for d in head}
  if len(keys) < 2:
    return Split(percent)
  # If any of these hashes is below the percentage, the smallest is too, and
  # `always` changes nothing.
  return Split(percent, min(sha256(k) for k in keys))
