"""Text for an evaluation, and the loop over its batches."""

from collections.abc import Callable, Iterator
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
  mesh: Any

  def first(self, tokens: int) -> 'Text':
    """Returns a text of only the first rows, enough for `tokens` positions."""
    return self._replace(rows=self.rows[: num_rows(self.cache, tokens)])


def num_rows(cache: Any, tokens: int) -> int:
  """Returns the number of rows for `tokens` positions, at most all rows."""
  return min(-(-tokens // cache.sequence_length), len(cache))


def sample(
    cache: Any, tokens: int, *, sequences: int, mesh: Any = None
) -> Text:
  """Returns a random sample of the cache's rows.

  The rows are permuted because the cache stores them in document order. The
  sample never changes, because NumPy has frozen the stream of `RandomState`.
  """
  order = np.random.RandomState(0).permutation(len(cache))
  parts = 1 if mesh is None else sharding.axis_size(mesh, 'sequences')
  sequences = -(-sequences // parts) * parts
  return Text(cache, order[: num_rows(cache, tokens)], sequences, mesh)


def in_memory(tokens: Int[np.ndarray, 'rows positions'], like: Text) -> Text:
  """Returns a text of these rows in order, batched like `like`."""
  return like._replace(cache=_Rows(tokens), rows=np.arange(len(tokens)))


def documents(text: Text) -> Int[np.ndarray, 'rows positions']:
  """Returns the document number of each token, consistent across rows.

  A document that did not fit into its row continues in the next row of the
  cache. A chat does not end with EOS, so a chat that fills its row counts as
  continued; a document's group of tokens may thus be too large, but never too
  small. Rows outside the text are read if a document may start in them.
  """
  length = text.cache.sequence_length
  known: dict[int, int] = {}

  def start(row: int) -> int:
    """Returns the cache position where the first document of a row starts."""
    passed = []
    while row not in known:
      passed.append(row)
      previous = text.cache.tokens_at(np.array([row - 1]))[0] if row else None
      if previous is None or not _is_continued(previous):
        known[row] = row * length
      elif (last := int(packing.positions(previous)[-1])) < length - 1:
        known[row] = row * length - 1 - last
      else:  # The whole previous row belongs to this document.
        row -= 1
    known.update(dict.fromkeys(passed, known[row]))
    return known[row]

  tokens = text.cache.tokens_at(text.rows)
  numbers = np.zeros(tokens.shape, np.int64)
  for i, row in enumerate(text.rows):
    starts = np.arange(length) - packing.positions(tokens[i])
    numbers[i] = np.where(starts == 0, start(int(row)), row * length + starts)
  _, numbers = np.unique(numbers, return_inverse=True)
  return numbers.reshape(tokens.shape)


def _is_continued(tokens: Int[np.ndarray, ' positions']) -> bool:
  """Returns whether the last document of a row continues in the next."""
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
  """Yields batches of token ids; the last one is padded to the same shape."""
  for start in range(0, len(text.rows), text.sequences):
    rows = text.rows[start : start + text.sequences]
    yield _padded(text, text.cache.tokens_at(rows).astype(np.int32), 0)


def value_batches(
    text: Text, values: Shaped[np.ndarray, 'rows ...'], filling: Any
) -> Iterator[jax.Array]:
  """Yields the values of each batch's rows; the last batch is padded."""
  for start in range(0, len(text.rows), text.sequences):
    yield _padded(text, values[start : start + text.sequences], filling)


def _padded(text, part, filling):
  """Returns a batch on the devices, padded with `filling` to full size."""
  whole = np.full((text.sequences, *part.shape[1:]), filling, part.dtype)
  whole[: len(part)] = part
  return place(whole, text.mesh, 'sequences', *[None] * (part.ndim - 1))


def over(
    text: Text, step: Callable[[jax.Array], Any], name: str
) -> Iterator[Any]:
  """Yields `step` of each batch on the host, one batch late.

  The delay lets the host add up one batch while the device runs the next.
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
    mesh: Any,
    *logical: str | None,
    rules: sharding.Rules = sharding.RULES,
) -> jax.Array:
  """Puts a host array on the mesh; every process must hold all of it."""
  if mesh is None:
    return jax.numpy.asarray(x)
  x = np.asarray(x)
  layout = sharding.named(mesh, *logical, rules=rules, shape=x.shape)
  return jax.make_array_from_callback(x.shape, layout, lambda part: x[part])
