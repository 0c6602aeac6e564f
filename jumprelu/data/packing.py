"""Documents of token ids -> rows of equal length, and the masks of a row.

A document is written as BOS, its tokens, EOS. A document that does not fit into
a row continues in the next row after another BOS, so that every row starts with
BOS and can be read without its neighbours. No token is dropped, and only the
last row is padded. Segments, positions and the keep mask are functions of the
row alone, so they are not stored.

For instruction-tuned models every piece of a document is the user's turn of a
chat (`Wrap`): BOS, prefix, tokens, suffix, without EOS. In this case a row is
also padded if its rest is too short for BOS, prefix, suffix and one token.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Int, Int32
from jumprelu.errors import UserError

# Gemma's special ids, and the pieces that open and close a turn of a chat. All
# families of `jumprelu.lm` share them; other tokenizers are refused.
PAD = 0
EOS = 1
BOS = 2
UNK = 3
TURN_PIECES = ('<start_of_turn>', '<end_of_turn>')


@dataclasses.dataclass(frozen=True)
class Wrap:
  """The tokens around each piece of a document, after its BOS."""

  prefix: tuple[int, ...] = ()
  suffix: tuple[int, ...] = ()
  # Whether EOS ends a document; not in a chat, where the model's turn follows.
  eos: bool = True


PLAIN = Wrap()


class Packer:
  """A packer of documents into rows.

  Its only state is `open_row`, the tokens of the unfinished row. A new packer
  with the `open_row` of an old one continues exactly where the old one stopped.
  """

  def __init__(
      self,
      sequence_length: int,
      open_row: Sequence[int] = (),
      *,
      wrap: Wrap = PLAIN,
  ):
    around = len(wrap.prefix) + len(wrap.suffix)
    if sequence_length < 2 + around:
      raise UserError(
          f'sequence_length={sequence_length}: a row holds a BOS'
          + f', {around} tokens around the text' * bool(around)
          + f' and at least one token; choose {2 + around} or more'
      )
    self.sequence_length = sequence_length
    self.open_row = list(open_row)
    self._wrap = wrap
    self._around = around

  def add(self, tokens: Sequence[int]) -> list[Int32[np.ndarray, ' positions']]:
    """Returns the rows that this document completes, none if it is empty."""
    if len(tokens) == 0:
      return []
    rest = [*tokens, EOS] if self._wrap.eos else list(tokens)
    done = 0
    rows = []
    while done < len(rest):
      room = self.sequence_length - len(self.open_row) - 1 - self._around
      if self._around and room < 1:
        rows += self.finish()
        continue
      self.open_row += [BOS, *self._wrap.prefix, *rest[done : done + room]]
      self.open_row += self._wrap.suffix
      done += room
      if len(self.open_row) == self.sequence_length:
        rows.append(np.asarray(self.open_row, np.int32))
        self.open_row = []
    return rows

  def finish(self) -> list[Int32[np.ndarray, ' positions']]:
    """Returns the padded last row, or an empty list if no row is open."""
    if not self.open_row:
      return []
    row = np.full(self.sequence_length, PAD, np.int32)
    row[: len(self.open_row)] = self.open_row
    self.open_row = []
    return [row]


def pack(
    documents: Iterable[Sequence[int]],
    sequence_length: int,
    *,
    wrap: Wrap = PLAIN,
) -> Iterator[Int32[np.ndarray, ' positions']]:
  """Yields the rows of all documents in order; empty documents are skipped."""
  packer = Packer(sequence_length, wrap=wrap)
  for tokens in documents:
    yield from packer.add(tokens)
  yield from packer.finish()


def _starts(tokens):
  """Returns a mask of segment starts: each BOS and each row's first token."""
  xp = jnp if isinstance(tokens, jax.Array) else np
  first = xp.arange(tokens.shape[-1]) == 0
  return (tokens == BOS) | xp.broadcast_to(first, tokens.shape)


def segments(
    tokens: (
        Int[Array, '*sequences positions']
        | Int[np.ndarray, '*sequences positions']
    ),
) -> (
    Int32[Array, '*sequences positions']
    | Int32[np.ndarray, '*sequences positions']
):
  """Returns each token's document number within its row, from 1; 0 for PAD.

  A document starts at each BOS and at the first token of the row. In a row of
  another packer the first token need not be BOS; without this rule, the tokens
  before the first BOS would have number 0 and be masked as padding.
  """
  xp = jnp if isinstance(tokens, jax.Array) else np
  count = xp.cumsum(_starts(tokens), axis=-1, dtype=np.int32)
  return xp.where(tokens == PAD, 0, count).astype(np.int32)


def positions(
    tokens: (
        Int[Array, '*sequences positions']
        | Int[np.ndarray, '*sequences positions']
    ),
) -> (
    Int32[Array, '*sequences positions']
    | Int32[np.ndarray, '*sequences positions']
):
  """Returns each token's position within its segment, from 0; 0 for PAD."""
  xp = jnp if isinstance(tokens, jax.Array) else np
  index = xp.broadcast_to(
      xp.arange(tokens.shape[-1], dtype=np.int32), tokens.shape
  )
  start = xp.where(_starts(tokens), index, 0)
  if xp is jnp:
    start = lax.cummax(jnp.asarray(start), axis=start.ndim - 1)
  else:
    start = np.maximum.accumulate(start, axis=-1)
  return xp.where(tokens == PAD, 0, index - start).astype(np.int32)


def keep_mask(
    tokens: (
        Int[Array, '*sequences positions']
        | Int[np.ndarray, '*sequences positions']
    ),
    user_prefix: tuple[int, ...] = (),
) -> (
    Bool[Array, '*sequences positions']
    | Bool[np.ndarray, '*sequences positions']
):
  """Returns a mask of the tokens to keep: all except PAD, BOS and EOS.

  In a chat, the tokens of `user_prefix` after a BOS are not kept either,
  because their activations are the same in every document and far larger than
  those of the text. The suffix after the text is kept.
  """
  keep = (tokens != PAD) & (tokens != BOS) & (tokens != EOS)
  if not user_prefix:
    return keep
  return keep & ~_in_prefix(tokens, user_prefix)


def _in_prefix(tokens, prefix):
  """Returns a mask of each complete `prefix` that directly follows a BOS."""
  xp = jnp if isinstance(tokens, jax.Array) else np
  length = tokens.shape[-1]

  def shifted(x, by):  # x[i + by] at index i; 0 outside of the row.
    width = [(0, 0)] * (x.ndim - 1) + [(max(-by, 0), max(by, 0))]
    start = max(by, 0)
    return xp.pad(x, width)[..., start : start + length]

  whole = tokens == BOS
  for i, token in enumerate(prefix):
    whole = whole & (shifted(tokens, i + 1) == token)
  inside = xp.zeros_like(whole)
  for i in range(len(prefix)):
    inside = inside | shifted(whole, -(i + 1))
  return inside
