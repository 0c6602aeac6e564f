"""Text for an evaluation, and the loop over its batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import sharding
from jumprelu.array_typing import Int, Shaped
from jumprelu.data import packing
from jumprelu.files import progress_line


class Text(NamedTuple):
  """Rows of a token cache, read in batches of `sequences` rows."""

  cache: Any
  rows: np.ndarray
  sequences: int
  mesh: jax.sharding.Mesh | None

  def first(self, tokens: int) -> 'Text':
    """Returns a text of only the first rows, enough for `tokens` positions."""
    return self._replace(rows=self.rows[: num_rows(self.cache, tokens)])


def num_rows(cache: Any, tokens: int) -> int:
  """Returns the number of rows with `tokens` positions, at most the cache's."""
  return min(-(-tokens // cache.sequence_length), len(cache))


def sample(
    cache: Any,
    tokens: int,
    *,
    sequences: int,
    mesh: jax.sharding.Mesh | None = None,
) -> Text:
  """Returns a random sample of the cache's rows.

  The rows are permuted because the cache stores them in document order. The
  sample never changes, because NumPy has frozen the stream of `RandomState`.

  Args:
    cache: The token cache.
    tokens: The number of positions to sample, rounded up to whole rows.
    sequences: The number of rows in a batch, rounded up to a multiple of the
      mesh axes over which sequences are sharded.
    mesh: The device mesh; one device if None.
  """
  order = np.random.RandomState(0).permutation(len(cache))
  parts = 1 if mesh is None else sharding.axis_size(mesh, 'sequences')
  sequences = -(-sequences // parts) * parts
  return Text(cache, order[: num_rows(cache, tokens)], sequences, mesh)


def in_memory(tokens: Int[np.ndarray, 'rows positions'], like: Text) -> Text:
  """Returns a text of these rows, with the batch size and mesh of `like`."""
  return like._replace(cache=_Rows(tokens), rows=np.arange(len(tokens)))


def documents(text: Text) -> Int[np.ndarray, 'rows positions']:
  """Returns the number of each token's document within the text."""
  starts = document_starts(text)
  _, numbers = np.unique(starts, return_inverse=True)
  return numbers.reshape(starts.shape)


def document_starts(text: Text) -> Int[np.ndarray, 'rows positions']:
  """Returns the cache position where the document of each token starts.

  A cache position is the row's number in the cache times the length of a row,
  plus the position in the row. A document that does not fit into its row
  continues in the next row of the cache and has the same start there. The rows
  before a row of the text are read, even outside the text, until the document's
  start is found.

  A chat does not end with EOS, so a chat that ends with its row seems to
  continue. Two chats may thus share a start, but no document has two starts.
  """
  length = text.cache.sequence_length
  tokens = text.cache.tokens_at(text.rows)
  starts = np.arange(length) - packing.positions(tokens)
  first = _first_starts(text.cache, text.rows.tolist())
  rows = np.asarray(text.rows, np.int64)[:, None] * length
  first = np.array([first[row] for row in text.rows.tolist()], np.int64)
  return np.where(starts == 0, first[:, None], rows + starts)


def _first_starts(cache: Any, rows: Sequence[int]) -> dict[int, int]:
  """Returns the cache position where the first document of each row starts."""
  length = cache.sequence_length
  # Whether a row's last document may continue, and its last position in it.
  ends: dict[int, tuple[bool, int]] = {}
  reached, latest = set(rows), set(rows)
  # Many rows are read together, because each read takes long.
  while needed := sorted({row - 1 for row in latest if row} - ends.keys()):
    previous = cache.tokens_at(np.array(needed))
    last = np.asarray(packing.positions(previous))[:, -1].tolist()
    continued = map(_is_continued, previous)
    ends.update(zip(needed, zip(continued, last, strict=True), strict=True))
    # All of such a row belongs to the document, which may begin before it.
    latest = {row for row in needed if ends[row] == (True, length - 1)}
    reached |= latest
  starts: dict[int, int] = {}
  for row in sorted(reached):
    continued, last = ends.get(row - 1, (False, 0))
    if not continued:
      starts[row] = row * length
    elif last < length - 1:
      starts[row] = row * length - 1 - last
    else:
      starts[row] = starts[row - 1]
  return starts


def _is_continued(tokens: Int[np.ndarray, ' positions']) -> bool:
  """Returns whether a row's last document may continue in the next row."""
  return tokens[-1] not in (packing.PAD, packing.EOS)


class _Rows(NamedTuple):
  """Rows in memory, with the interface of a token cache."""

  tokens: np.ndarray

  @property
  def sequence_length(self) -> int:
    return self.tokens.shape[1]

  def tokens_at(self, rows: np.ndarray) -> np.ndarray:
    return self.tokens[rows]


def batches(text: Text) -> Iterator[jax.Array]:
  """Yields batches of token ids; the last one is filled with rows of PAD."""
  for start in range(0, len(text.rows), text.sequences):
    rows = text.rows[start : start + text.sequences]
    tokens = text.cache.tokens_at(rows).astype(np.int32)
    yield _padded(text, tokens, packing.PAD)


def value_batches(
    text: Text, values: Shaped[np.ndarray, 'rows ...'], filling: Any
) -> Iterator[jax.Array]:
  """Yields the values of each batch's rows.

  The last batch is padded with `filling`.
  """
  for start in range(0, len(text.rows), text.sequences):
    yield _padded(text, values[start : start + text.sequences], filling)


def _padded(text, part, filling):
  """Returns a batch on the devices, with `filling` in its missing rows."""
  whole = np.full((text.sequences, *part.shape[1:]), filling, part.dtype)
  whole[: len(part)] = part
  return place(whole, text.mesh, 'sequences', *[None] * (part.ndim - 1))


def over(
    text: Text, step: Callable[[jax.Array], Any], name: str
) -> Iterator[Any]:
  """Yields the result of `step` for each batch, on the host.

  A result is fetched after the next batch is dispatched, so that the host adds
  up one batch while the device runs the next. `name` labels the progress line.
  """
  total = -(-len(text.rows) // text.sequences)
  progress = progress_line.ProgressLine(
      name, total, quiet=jax.process_index() > 0
  )
  pending = None
  for tokens in progress.over(batches(text)):
    ready, pending = pending, step(tokens)
    if ready is not None:
      yield jax.device_get(ready)
  if pending is not None:
    yield jax.device_get(pending)


def place(
    x: Any,
    mesh: jax.sharding.Mesh | None,
    *logical: str | None,
    rules: sharding.Rules = sharding.RULES,
) -> jax.Array:
  """Puts a host array on the mesh, sharded by its logical axes.

  Every process must hold the whole array.
  """
  if mesh is None:
    return jax.numpy.asarray(x)
  x = np.asarray(x)
  layout = sharding.named(mesh, *logical, rules=rules, shape=x.shape)
  return jax.make_array_from_callback(x.shape, layout, lambda part: x[part])
