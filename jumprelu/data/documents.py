"""A document, a source of documents, and which documents are held out."""

from collections.abc import Iterator
import hashlib
import itertools
from typing import Any, NamedTuple, Protocol, runtime_checkable

# The smallest hash is sought among so many documents: of more, the hash holds
# some out anyway.
_LOOK_AHEAD = 64


class Document(NamedTuple):
  """A text with a name; names are unique within a source."""

  name: str
  text: str


@runtime_checkable
class Source(Protocol):
  """Where documents come from: the same ones in the same order every time."""

  name: str

  def documents(self) -> Iterator[Document]:
    """Yields all documents in order; none is empty."""
    ...

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the documents; recorded with every result."""
    ...

  def split_key(self, document: Document) -> str:
    """Returns the string whose hash decides whether it is held out."""
    ...

  def size(self) -> int:
    """Returns about how many bytes of text there are, 0 if unknown."""
    ...


def sha256(text: str) -> str:
  """Returns the hex digest of a text, whatever characters it holds."""
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


def is_held_out(key: str, percent: int) -> bool:
  """Returns whether the key's hash falls into the first `percent` of 100."""
  return int(sha256(key)[:16], 16) * 100 < percent * 2**64


class Split(NamedTuple):
  """The rule that holds documents out; equal keys are always on one side."""

  percent: int
  always: str = ''

  def holds_out(self, key: str) -> bool:
    """Returns whether the document with this key is held out."""
    return is_held_out(key, self.percent) or (
        bool(self.always) and sha256(key) == self.always
    )


def make_split(source: Source, percent: int) -> Split:
  """Returns the split by hash, which holds out at least one of two documents.

  With few documents the hash may choose none of them; then the one with the
  smallest hash is held out.
  """
  head = itertools.islice(source.documents(), _LOOK_AHEAD)
  keys = {source.split_key(d) for d in head}
  if len(keys) < 2:
    return Split(percent)
  # Where the hash chooses any, this one is among them.
  return Split(percent, min(sha256(k) for k in keys))
