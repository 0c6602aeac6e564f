"""SentencePiece tokenizers: reading Gemma's and training small ones.

The special ids are Gemma's: PAD 0, EOS 1, BOS 2, UNK 3. `packing` adds BOS, EOS
and PAD; encoding does not.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import hashlib
import io
import os
import pathlib

import numpy as np

from jumprelu import extras
from jumprelu.data import gguf_tokenizer, packing
from jumprelu.errors import DataError, MissingInputError, UserError
from jumprelu.files import gguf_header, lfs

# Runs of white space are single pieces, as in Gemma's vocabulary, because most
# tokens of code would otherwise be indentation. SentencePiece writes a space as
# U+2581.
_SPACE = '\u2581'
_WHITE_SPACE = (
    ['\n', '\n\n', '\n\n\n', '\t', '\t\t']
    + [_SPACE * n for n in range(2, 17)]
    + ['\n' + _SPACE * n for n in (2, 4, 6, 8, 12, 16, 20)]
)


class Tokenizer:
  """Text <-> token ids by the SentencePiece model at `path`.

  The path is that of a model file, or of a GGUF file with a vocabulary.

  `rows` is the number of rows of the language model's embedding. A tokenizer
  with more pieces raises a UserError, because it belongs to another model.
  """

  def __init__(self, path: str | os.PathLike[str], *, rows: int | None = None):
    with extras.imports():
      import sentencepiece

    self.path = str(path)
    if not os.path.isfile(path):
      other = pathlib.Path(path).with_name('tokenizer.json')
      cure = (
          '; tokenizer.json beside it is not read, put the SentencePiece file of'
          " the same model's repository there"
          if other.is_file()
          else ''
      )
      raise MissingInputError(f'{path}: no such tokenizer file{cure}')
    lfs.refuse_pointer(path)
    is_gguf = gguf_header.is_gguf(pathlib.Path(path))
    self._model = (
        gguf_tokenizer.rebuild(path)
        if is_gguf
        else pathlib.Path(path).read_bytes()
    )
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(self._model)
    except (RuntimeError, UnicodeDecodeError) as e:
      raise DataError(
          f'{path}: not a SentencePiece model'
          + (f' ({" ".join(str(e).split())})' if is_gguf else '')
      ) from e
    p = self._processor
    special = (p.pad_id(), p.eos_id(), p.bos_id(), p.unk_id())
    wanted = (packing.PAD, packing.EOS, packing.BOS, packing.UNK)
    if special != wanted:
      raise UserError(
          f'{path}: the ids of pad, eos, bos, unk are {special}, must be'
          f' {wanted}'
      )
    if rows is not None and p.vocab_size() > rows:
      raise UserError(
          f'{path}: has {p.vocab_size()} pieces, but the language model has'
          f" {rows} rows; use that model's tokenizer"
      )

  def __repr__(self) -> str:
    return f'Tokenizer({self.vocab_size:,} pieces)'

  @functools.cached_property
  def sha256(self) -> str:
    """The digest of the model file, or of the rebuilt model."""
    return hashlib.sha256(self._model).hexdigest()

  @property
  def vocab_size(self) -> int:
    """The number of pieces, special ones included."""
    return self._processor.vocab_size()

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, without BOS and EOS."""
    try:
      return self._processor.encode(text)
    except (RuntimeError, TypeError, UnicodeEncodeError) as e:
      raise self._not_text(text) or e from None

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each text, encoded on all cores."""
    try:
      return self._processor.encode(
          list(texts), num_threads=max(1, os.cpu_count() or 1)
      )
    except (RuntimeError, TypeError, UnicodeEncodeError) as e:
      raise self._not_text(*texts) or e from None

  @staticmethod
  def _not_text(*texts: str) -> UserError | None:
    """Returns the error of the first text that has no bytes in UTF-8."""
    for text in texts:
      try:
        text.encode()
      except UnicodeEncodeError as e:
        return UserError(
            f'{ascii(text[:40])}: half a character (lone surrogate) at index'
            f' {e.start}; remove it'
        )
    return None

  def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
    """Returns the ids of `text` and the index in `text` at which each starts.

    A token starts at its first character that is not white space; a token that
    consists of white space starts at its first character. If a character is
    encoded as several tokens, one per byte, all of them start at this
    character.

    Raises:
      DataError: if the tokens do not spell the text.
    """
    ids = self.encode(text)
    # The index of the character to which each byte belongs.
    sizes = [len(c.encode()) for c in text]
    character = np.repeat(np.arange(len(text)), sizes)
    starts, offset = [], 0
    for token in ids:
      raw = self._bytes_of(token)
      blank = len(raw) - len(raw.lstrip())
      first = offset + (blank if blank < len(raw) else 0)
      offset += len(raw)
      if offset > len(character):
        break
      starts.append(int(character[first]))
    if offset != len(character):
      raise DataError(
          f'{self.path}: its pieces do not spell the text that they encode; use'
          ' a tokenizer that does not normalise text'
      )
    return ids, starts

  def _bytes_of(self, token: int) -> bytes:
    piece = self._piece(token)
    if self._processor.is_byte(token):
      return bytes.fromhex(piece[3:-1])
    return piece.replace(_SPACE, ' ').encode()

  def encode_pieces(self, *pieces: str) -> tuple[int, ...]:
    """Returns the ids of `pieces`, concatenated.

    A piece in the vocabulary becomes its id, and other pieces are encoded. A
    special piece such as '<start_of_turn>' is in the vocabulary, but `encode`
    may split it.
    """
    ids = []
    for piece in pieces:
      token = self._processor.piece_to_id(piece)
      ids += self.encode(piece) if token == packing.UNK else [token]
    return tuple(ids)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of `ids`; PAD, EOS and BOS have no text."""
    try:
      return self._processor.decode([int(i) for i in ids])
    except UnicodeDecodeError as e:
      raise self._damaged(e) from e

  def piece(self, token: int | np.integer) -> str:
    """Returns the piece of one token, with a space for each U+2581."""
    return self._piece(int(token)).replace(_SPACE, ' ')

  def _piece(self, token: int) -> str:
    try:
      return self._processor.id_to_piece(token)
    except UnicodeDecodeError as e:
      raise self._damaged(e) from e

  def _damaged(self, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f'{self.path}: a piece is not UTF-8 ({error}); fetch it again'
    )


def _lines(texts: Iterable[str]) -> Iterator[str]:
  """Yields lines, because the trainer drops texts of more than 4,192 bytes."""
  for text in texts:
    for line in text.splitlines():
      if line.strip():
        yield line


def train_tokenizer(
    texts: Iterable[str], path: str | os.PathLike[str], vocab_size: int
) -> Tokenizer:
  """Returns a byte-fallback BPE tokenizer, trained and written to `path`.

  The same texts in the same order result in the same bytes, because training
  uses one thread and no sampling, and the file contains no date.

  Raises:
    UserError: if the text does not suffice for `vocab_size` pieces.
  """
  with extras.imports():
    import sentencepiece

  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(texts),
        model_writer=model,
        model_type='bpe',
        vocab_size=vocab_size,
        pad_id=packing.PAD,
        eos_id=packing.EOS,
        bos_id=packing.BOS,
        unk_id=packing.UNK,
        byte_fallback=True,
        character_coverage=0.9999,
        split_digits=True,
        normalization_rule_name='identity',
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=_WHITE_SPACE,
        num_threads=1,
        minloglevel=2,
    )
  except RuntimeError as e:
    raise UserError(
        f'vocab_size={vocab_size}: the tokenizer cannot be trained on this'
        f' text ({str(e).splitlines()[-1]}); use more text or another size'
    ) from e
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(model.getvalue())
  partial.replace(path)
  return Tokenizer(path)
