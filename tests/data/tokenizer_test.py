"""The tokenizer keeps every character and never encodes to a special id."""

import io
import pathlib

import pytest
import sentencepiece

from jumprelu import lm
from jumprelu.data import tokenizer as tokenizer_lib
from jumprelu.errors import DataError, MissingInputError, UserError


def test_special_ids_are_gemmas(tokenizer):
  model = sentencepiece.SentencePieceProcessor(model_file=tokenizer.path)
  ids = (model.pad_id(), model.eos_id(), model.bos_id(), model.unk_id())
  assert ids == (0, 1, 2, 3)
  assert tokenizer.vocab_size == 420


def test_every_text_survives_encoding(tokenizer, texts):
  strange = ' two  spaces\n\n\n\tand\t\ttabs \r\n 𝔘𝔫𝔦 \x00 漢字 <bos> </s> 123'
  for text in [*texts.values(), strange, '', '\n', '   ']:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {0, 1, 2, 3}


def test_a_token_starts_at_its_first_visible_character(tokenizer, texts):
  spaced = 0
  for text in texts.values():
    ids, starts = tokenizer.encode_with_starts(text)
    assert ids == tokenizer.encode(text) and starts == sorted(starts)
    for token, start in zip(ids, starts, strict=True):
      piece = tokenizer.piece(token)
      if not piece.startswith('<0x'):
        assert text.startswith(piece.strip() or piece, start)
        spaced += piece != piece.lstrip() != ''
  assert spaced
  # All byte tokens of a character start at that character.
  _, starts = tokenizer.encode_with_starts('a 𝔘')
  assert starts.count(2) == 4
  assert tokenizer.encode_with_starts('') == ([], [])


def test_a_tokenizer_that_rewrites_its_text_is_refused(tokenizer):
  # SentencePiece writes a space as U+2581, so the pieces spell a space instead.
  with pytest.raises(DataError, match='do not spell the text'):
    tokenizer.encode_with_starts('a\u2581b')


def test_an_indentation_is_a_single_token(tokenizer):
  assert len(tokenizer.encode('\n        ')) == 1
  assert len(tokenizer.encode(' ' * 16)) == 1


def test_a_batch_equals_its_texts_one_by_one(tokenizer, texts):
  batch = tokenizer.encode_batch(list(texts.values()))
  assert batch == [tokenizer.encode(t) for t in texts.values()]


def test_training_twice_gives_the_same_bytes(tokenizer, texts, tmp_path):
  again = tokenizer_lib.train_tokenizer(
      texts.values(), tmp_path / 'elsewhere' / 'other.model', 420
  )
  assert (tmp_path / 'elsewhere' / 'other.model').read_bytes() == open(
      tokenizer.path, 'rb'
  ).read()
  assert again.sha256 == tokenizer.sha256


def test_another_text_gives_another_digest(tokenizer, texts, tmp_path):
  other = tokenizer_lib.train_tokenizer(
      list(texts.values())[1:], tmp_path / 'b.model', 420
  )
  assert other.sha256 != tokenizer.sha256


def test_a_missing_file_is_missing_input(tmp_path):
  with pytest.raises(MissingInputError, match='nowhere.model'):
    tokenizer_lib.Tokenizer(tmp_path / 'nowhere.model')


def test_a_file_that_is_no_model_is_damaged_data(tmp_path):
  (tmp_path / 'bad.model').write_bytes(b'not a model')
  with pytest.raises(DataError, match='bad.model: not a SentencePiece'):
    tokenizer_lib.Tokenizer(tmp_path / 'bad.model')


def test_a_model_with_other_special_ids_is_refused(texts, tmp_path):
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter('\n'.join(texts.values()).splitlines()),
      model_writer=model,
      vocab_size=200,
      model_type='bpe',
      minloglevel=2,
  )
  (tmp_path / 'other.model').write_bytes(model.getvalue())
  with pytest.raises(UserError, match='pad, eos, bos, unk'):
    tokenizer_lib.Tokenizer(tmp_path / 'other.model')


def test_a_vocabulary_too_large_for_the_text_is_an_error(tmp_path):
  with pytest.raises(UserError, match='vocab_size=5000'):
    tokenizer_lib.train_tokenizer(['a short text'], tmp_path / 'x', 5000)


def test_a_tokenizer_with_more_pieces_than_the_model_has_rows_is_refused():
  path = pathlib.Path(lm.__file__).parent / 'nano' / 'tokenizer.model'
  assert tokenizer_lib.Tokenizer(path, rows=4096).vocab_size == 4096
  with pytest.raises(UserError, match='4096 pieces, but the .* 4095 rows'):
    tokenizer_lib.Tokenizer(path, rows=4095)


def test_half_a_character_is_refused_by_name(tokenizer):
  for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
    with pytest.raises(UserError, match='lone surrogate.* at index 2'):
      encode('ab\ud800')


def test_a_piece_that_is_not_utf_8_is_named(tokenizer, tmp_path):
  data = pathlib.Path(tokenizer.path).read_bytes()
  # The character a; a field of its length precedes a piece.
  assert data.count(b'\n\x01a') == 1
  path = tmp_path / 'a.model'
  path.write_bytes(data.replace(b'\n\x01a', b'\n\x01\xff'))
  with pytest.raises(DataError, match='a.model: .*UTF-8'):
    damaged = tokenizer_lib.Tokenizer(path)
    for token in range(damaged.vocab_size):
      damaged.piece(token)
      damaged.decode([token])
