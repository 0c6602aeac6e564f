"""Texts as token ids: BOS, limits and padding."""

from collections.abc import Sequence

import numpy as np

from jumprelu import data, errors, lm
from jumprelu.array_typing import Int
from jumprelu.data import packing

# Texts are padded to a power of two of at least this length, so that few
# programs are compiled.
_LEAST_LENGTH = 16

Text = str | Sequence[int | np.integer] | np.ndarray


def encode(
    tokenizer: data.Tokenizer, text: Text, *, config: lm.LmConfig
) -> Int[np.ndarray, ' tokens']:
  """Returns the token ids of a text, BOS first (`LanguageModel.tokenize`)."""
  ids = _ids(tokenizer, text)
  if ids[0] != packing.BOS:
    ids = [packing.BOS, *ids]
  if len(ids) > config.context:
    raise errors.UserError(
        f'{len(ids)} tokens, but the context of {config.name} has'
        f' {config.context}: shorten the text, for instance to'
        f' lm.tokenizer.encode(text)[:{config.context - 1}]'
    )
  _check_ids(ids, config)
  return np.asarray(ids, np.int32)


def _ids(tokenizer: data.Tokenizer, text: Text) -> list[int]:
  """Returns token ids, without BOS unless the argument had it."""
  if isinstance(text, str):
    ids = tokenizer.encode(text)
  else:
    array = np.asarray(text)
    if array.ndim != 1 or array.size and array.dtype.kind not in 'iu':
      raise errors.UserError(
          'pass one text as a str, or its token ids as a list of integers'
      )
    ids = array.tolist()
  if not ids:
    raise errors.UserError(
        f'the text is empty; [{packing.BOS}] is BOS alone, as token ids'
    )
  return ids


def _check_ids(ids: Sequence[int | np.integer], config: lm.LmConfig) -> None:
  for token in ids:
    if not 0 <= token < config.vocab or token == packing.PAD:
      raise errors.UserError(
          f'token id {token}: ids must be from 1 to {config.vocab - 1}'
      )


def encode_one(
    tokenizer: data.Tokenizer,
    token: str | int | np.integer,
    *,
    config: lm.LmConfig,
) -> int:
  """Returns the id of a token that is passed as text or id."""
  ids = tokenizer.encode(token) if isinstance(token, str) else [token]
  if len(ids) != 1:
    pieces = [tokenizer.piece(i) for i in ids]
    raise errors.UserError(
        f'{token!r} is {len(ids)} tokens {pieces}; choose one, as text or id'
    )
  _check_ids(ids, config)
  return int(ids[0])


def index(position: int, count: int) -> int:
  """Returns the index of a token of a text, counted from the end if negative.

  Raises:
    UserError: The text has no such token.
  """
  if not -count <= position < count:
    raise errors.UserError(
        f'position {position}: the text has tokens 0 to {count - 1}'
    )
  return position % count


def room(count: int) -> int:
  """Returns the power of two to which `count` tokens are padded."""
  return max(_LEAST_LENGTH, 1 << (count - 1).bit_length())


def padded(
    tokens: Int[np.ndarray, ' tokens'], *, more: int = 0
) -> Int[np.ndarray, '1 room']:
  """Returns a row of tokens with padding for at least `more` tokens."""
  row = np.full((1, room(len(tokens) + more)), packing.PAD, np.int32)
  row[0, : len(tokens)] = tokens
  return row
