"""The SentencePiece model of a GGUF file, rebuilt from its vocabulary.

The file has the pieces, their scores and their types, which determine every id
if text is neither normalised nor prefixed with a space, as in Gemma's
tokenizers. llama.cpp changes three details of a SentencePiece model. The
changes of spaces in user-defined pieces and of the type of UNK are undone here.
The third has no effect on other text: '<start_of_turn>' and similar pieces are
control pieces, so that text which spells such a piece is encoded as other text.
"""

import os
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.data import packing
from jumprelu.errors import DataError
from jumprelu.files import gguf_file

_PREFIX = 'tokenizer.ggml.'
_CURE = 'fetch it again, or use a folder with tokenizer.model'
# The number of a piece's type, the same in GGUF and in SentencePiece.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_TYPES = range(1, 7)
# The special pieces of a SentencePiece model and their ids in GGUF.
_SPECIAL = {
    'pad': 'padding_token_id',
    'eos': 'eos_token_id',
    'bos': 'bos_token_id',
    'unk': 'unknown_token_id',
}
# Entries that would change the text before it is encoded.
_CHANGES_TEXT = ('add_space_prefix', 'remove_extra_whitespaces')


def rebuild(path: str | os.PathLike[str]) -> bytes:
  """Returns the serialised SentencePiece model of a GGUF file.

  Raises:
    MissingInputError: if there is no such file.
    DataError: if the file is damaged, or has no vocabulary of SentencePiece.
  """
  with extras.imports():
    from sentencepiece import sentencepiece_model_pb2

  file = gguf_file.GgufFile(path)
  _check_kind(file)
  tokens, scores, types = _vocabulary(file)
  ids = _special_ids(file, tokens)
  for name in ('pad', 'eos', 'bos'):
    if types[ids[name]] not in (_CONTROL, _USER_DEFINED):
      raise DataError(
          f'{path}: {_PREFIX}{_SPECIAL[name]} is {ids[name]}, but the type of'
          f' that piece is {types[ids[name]]}, wanted {_CONTROL}; {_CURE}'
      )
    types[ids[name]] = _CONTROL
  types[ids['unk']] = _UNKNOWN
  model: Any = sentencepiece_model_pb2.ModelProto()
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  trainer.model_type = trainer.BPE
  trainer.vocab_size = len(tokens)
  trainer.byte_fallback = True
  for name, number in ids.items():
    setattr(trainer, f'{name}_id', number)
    setattr(trainer, f'{name}_piece', tokens[number])
  normalizer.name = 'identity'
  normalizer.add_dummy_prefix = False
  normalizer.remove_extra_whitespaces = False
  for token, score, kind in zip(tokens, scores, types, strict=True):
    if kind == _USER_DEFINED:
      token = token.replace(' ', '\u2581')
    model.pieces.add(piece=token, score=score, type=kind)
  return model.SerializeToString(deterministic=True)


def _check_kind(file: gguf_file.GgufFile) -> None:
  """Raises a DataError unless text is encoded as in Gemma's tokenizers."""
  kind = file.metadata.get(f'{_PREFIX}model')
  if kind != 'llama':
    raise DataError(
        f"{file.path}: {_PREFIX}model is {kind!r}, wanted 'llama'"
        f' (SentencePiece); {_CURE}'
    )
  for key in _CHANGES_TEXT:
    if file.metadata.get(f'{_PREFIX}{key}', False) is not False:
      raise DataError(
          f'{file.path}: {_PREFIX}{key} is'
          f" {file.metadata[f'{_PREFIX}{key}']!r}, wanted False; {_CURE}"
      )
  charsmap = file.metadata.get(f'{_PREFIX}precompiled_charsmap')
  if charsmap is not None and getattr(charsmap, 'count', 1):
    raise DataError(
        f'{file.path}: {_PREFIX}precompiled_charsmap normalises text, which'
        f' is not supported; {_CURE}'
    )


def _vocabulary(
    file: gguf_file.GgufFile,
) -> tuple[list[str], list[float], list[int]]:
  """Returns the pieces, their scores and their types."""
  tokens = file.strings(f'{_PREFIX}tokens')
  scores = file.numbers(f'{_PREFIX}scores')
  types = file.numbers(f'{_PREFIX}token_type')
  for key, array in (
      ('tokens', tokens), ('scores', scores), ('token_type', types)
  ):  # fmt: skip
    if array is None:
      raise DataError(f'{file.path}: {_PREFIX}{key} is missing; {_CURE}')
  assert tokens is not None and scores is not None and types is not None
  for key, array in (('scores', scores), ('token_type', types)):
    if len(array) != len(tokens):
      raise DataError(
          f'{file.path}: {_PREFIX}{key} has {len(array)} entries, but'
          f' {_PREFIX}tokens has {len(tokens)}; {_CURE}'
      )
  if not np.isfinite(scores).all():
    raise DataError(
        f'{file.path}: {_PREFIX}scores has non-finite values; {_CURE}'
    )
  if not np.isin(types, _TYPES).all():
    raise DataError(
        f'{file.path}: {_PREFIX}token_type has unknown types; {_CURE}'
    )
  return tokens, scores.tolist(), types.tolist()


def _special_ids(file: gguf_file.GgufFile, tokens: list[str]) -> dict[str, int]:
  """Returns the ids of the special pieces, which are all different."""
  ids, count = {}, len(tokens)
  for name, entry in _SPECIAL.items():
    key = f'{_PREFIX}{entry}'
    number = file.metadata.get(key)
    if type(number) is not int or not 0 <= number < count:
      raise DataError(
          f'{file.path}: {key} is {number!r}, wanted an id below {count};'
          f' {_CURE}'
      )
    if number in ids.values():
      raise DataError(
          f'{file.path}: {key} is {number}, the id of another special piece;'
          f' {_CURE}'
      )
    ids[name] = number
  # In files of chat models, EOS may be the piece that ends a turn.
  if packing.EOS < count and tokens[packing.EOS] == '<eos>':
    ids['eos'] = packing.EOS
  return ids
