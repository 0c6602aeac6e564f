"""A tokenizer that is rebuilt from a GGUF file equals SentencePiece's own."""

import functools
import pathlib
import random
import tracemalloc

import pytest
from sentencepiece import sentencepiece_model_pb2

from jumprelu import lm
from jumprelu.data import tokenizer as tokenizer_lib
from jumprelu.errors import DataError, MissingInputError, UserError
from tests.lm import gguf_files

_PREFIX = 'tokenizer.ggml.'
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9

_ODD = (
    '',
    ' ',
    'one two  three   four    five' + ' ' * 40 + 'end ',
    '\n\n\n\n\n x \n\n\n\ty\t\tz\t\t\t\r\n\r  \n  ',
    '    def f(x):\n        return x\n\n\n',
    '😀👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈 \U0001f9ff',
    'e\u0301 a\u0308\u0323 \u0e01\u0e33 \u1112\u1161\u11ab é ﬁ Å ½ ①',
    '\x00a\x00\x00b \x01\x1f\x7f\x80\x9f \ufeff\u200b\u00ad',
    'שלום \u202eabc\u202c مرحبا بالعالم \u200f123',
    '1234567890 3.14 1e-10 0x1F ٣٤٥ ½ Ⅻ',
    '漢字かな交じり文 한국어 中文,。「」\u3000全角',
    b'caf\xe9 \xff\xfe \xe2\x82 \xf0\x9f'.decode(errors='replace'),
    'x' * 3000 + 'supercalifragilistic' * 200,
    '<bos> <eos></s> <pad> <unk> <s> <mask> [multimodal] <start_of_turn>user',
    '<b>bold</b> <code> <unused0><end_of_turn> <0x0A> <0xFF>',
    'a\u00a0b\u2003c\u2028d\u2029e\u205ff',
    '\ue000 \U000f0000 \U0010ffff \ufffe \u0378',
    'tAbS\tand CamelCase_snake-kebab/path\\back"quotes\'`',
)


def _random_texts(count):
  """Yields texts of random characters of many kinds."""
  rng = random.Random(0)
  ranges = (
      (0, 0x80), (0x20, 0x7F), (0x80, 0x800), (0x4E00, 0x9FFF),
      (0x1F300, 0x1FAFF), (0x300, 0x370), (0xE000, 0x10FFFF),
  )  # fmt: skip
  runs = ('  ', '\n', '\n\n', '\t', '<b>', '</b>', '<start_of_turn>')
  for _ in range(count):
    parts = []
    for _ in range(rng.randrange(60)):
      low, high = rng.choice(ranges)
      parts.append(
          rng.choice(runs) * rng.randrange(1, 9)
          if rng.random() < 0.3
          else chr(rng.randrange(low, high))
      )
    yield ''.join(parts)


def nano_path():
  return pathlib.Path(lm.__file__).parent / 'nano' / 'tokenizer.model'


def like_gemma():
  """Returns nano's model with Gemma's kinds of pieces in it.

  Text of users is among the user-defined pieces, as '<b>' in Gemma's, and
  '<start_of_turn>' is a control piece, as in GGUF files.
  """
  model = sentencepiece_model_pb2.ModelProto()
  model.CopyFrom(gguf_files.nano_model())
  for number, text in ((1, '<eos>'), (2, '<bos>')):
    model.pieces[number].piece = text
  model.trainer_spec.eos_piece, model.trainer_spec.bos_piece = '<eos>', '<bos>'
  kinds = model.pieces[0]
  for text, kind in (
      ('<start_of_turn>', kinds.CONTROL), ('<unused0>', kinds.CONTROL),
      ('<b>', kinds.USER_DEFINED), ('</b>', kinds.USER_DEFINED),
      ('\n' * 7, kinds.USER_DEFINED), ('\u2581' * 31, kinds.USER_DEFINED),
      ('<end\u2581of\u2581line>\u2581', kinds.USER_DEFINED),
      ('supercali', kinds.UNUSED),
  ):  # fmt: skip
    score = -1.5 if kind == kinds.UNUSED else 0.0
    model.pieces.add(piece=text, score=score, type=kind)
  model.trainer_spec.vocab_size = len(model.pieces)
  return model


def write(path, proto=None, /, **changes):
  """Writes a GGUF file without tensors; None removes an entry."""
  entries = gguf_files.tokenizer(proto)
  entries |= {_PREFIX + key: value for key, value in changes.items()}
  entries = {k: v for k, v in entries.items() if v is not None}
  return gguf_files.Draft(entries, {}).write(path)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """Returns pairs of a rebuilt tokenizer and the original one."""
  folder = tmp_path_factory.mktemp('tokenizers')
  rebuilt = write(folder / 'nano.gguf')
  result = [
      (tokenizer_lib.Tokenizer(rebuilt), tokenizer_lib.Tokenizer(nano_path()))
  ]
  (folder / 'gemma.model').write_bytes(like_gemma().SerializeToString())
  rebuilt = write(folder / 'gemma.gguf', like_gemma())
  result.append(
      (
          tokenizer_lib.Tokenizer(rebuilt),
          tokenizer_lib.Tokenizer(folder / 'gemma.model'),
      )
  )
  return result


def test_ids_of_odd_text_are_those_of_sentencepiece(pairs):
  texts = [*_ODD, *_random_texts(300)]
  for ours, theirs in pairs:
    assert ours.vocab_size == theirs.vocab_size
    for text in texts:
      ids = ours.encode(text)
      assert ids == theirs.encode(text), repr(text)
      assert ours.decode(ids) == theirs.decode(ids)
      if '\u2581' not in text:
        assert ours.decode(ids) == text
        assert ours.encode_with_starts(text) == theirs.encode_with_starts(text)
    assert ours.encode_batch(texts) == theirs.encode_batch(texts)


def test_every_piece_is_that_of_sentencepiece(pairs):
  for ours, theirs in pairs:
    for token in range(ours.vocab_size):
      assert ours.piece(token) == theirs.piece(token)
      assert ours.decode([token]) == theirs.decode([token])
      piece = theirs.piece(token)
      assert ours.encode_pieces(piece) == theirs.encode_pieces(piece)


def test_text_that_spells_a_control_piece_is_other_text(pairs):
  ours, _ = pairs[1]
  (turn,) = ours.encode_pieces('<start_of_turn>')
  assert turn == 4096
  assert turn not in ours.encode('<start_of_turn>user')
  assert 4098 in ours.encode('a<b>')  # A user-defined piece.
  for text in ('<bos>', '<eos>', '<pad>', '<unk>'):
    assert not set(ours.encode(text)) & {0, 1, 2, 3}


def test_the_digest_depends_on_the_vocabulary_only(pairs, tmp_path):
  ours, _ = pairs[0]
  entries = gguf_files.tokenizer() | {'general.name': (_STRING, 'other')}
  path = gguf_files.Draft(entries, {}).write(tmp_path / 'b.gguf')
  assert tokenizer_lib.Tokenizer(path).sha256 == ours.sha256
  assert pairs[1][0].sha256 != ours.sha256


def test_a_file_without_the_suffix_is_recognised(pairs, tmp_path):
  path = write(tmp_path / 'model.bin')
  assert tokenizer_lib.Tokenizer(path).sha256 == pairs[0][0].sha256
  (tmp_path / 'b.gguf').write_bytes(nano_path().read_bytes())
  with pytest.raises(DataError, match='not a GGUF file'):
    tokenizer_lib.Tokenizer(tmp_path / 'b.gguf')


def test_rows_of_another_model_are_refused(tmp_path):
  path = write(tmp_path / 'a.gguf')
  assert tokenizer_lib.Tokenizer(path, rows=4096).vocab_size == 4096
  with pytest.raises(UserError, match='4096 pieces, but the .* 4095 rows'):
    tokenizer_lib.Tokenizer(path, rows=4095)


@functools.cache
def few():
  """Returns a model of nano's first 800 pieces."""
  model = sentencepiece_model_pb2.ModelProto()
  model.pieces.extend(gguf_files.nano_model().pieces[:800])
  return model


def _list(key, **changes):
  """Returns an array of the metadata with entries replaced by index."""
  kind, (inner, values) = gguf_files.tokenizer(few())[_PREFIX + key]
  values = list(values)
  for index, value in changes.items():
    values[int(index[1:])] = value
  return kind, (inner, values)


def _shorter(key):
  kind, (inner, values) = gguf_files.tokenizer(few())[_PREFIX + key]
  return kind, (inner, values[:-1])


_DAMAGED = {
    'no tokens': ({'tokens': None}, 'tokens is missing'),
    'no scores': ({'scores': None}, 'scores is missing'),
    'no types': ({'token_type': None}, 'token_type is missing'),
    'fewer tokens': (
        {'tokens': _shorter('tokens')},
        'scores has 800 entries, but tokenizer.ggml.tokens has 799',
    ),
    'fewer scores': (
        {'scores': _shorter('scores')},
        'scores has 799 entries, but tokenizer.ggml.tokens has 800',
    ),
    'fewer types': (
        {'token_type': _shorter('token_type')},
        'token_type has 799 entries',
    ),
    'numbers for tokens': (
        {'tokens': (_ARRAY, (_F32, [0.0]))},
        'tokens is not an array of strings',
    ),
    'strings for scores': (
        {'scores': (_ARRAY, (_STRING, ['a']))},
        'scores is not an array of numbers',
    ),
    'a string for tokens': (
        {'tokens': (_STRING, 'a')},
        'tokens is not an array of strings',
    ),
    'scores of NaN': (
        {'scores': _list('scores', _700=float('nan'))},
        'scores has non-finite values',
    ),
    'type 7': (
        {'token_type': _list('token_type', _700=7)},
        'token_type has unknown types',
    ),
    'tokens of other bytes': (
        {'tokens': _list('tokens', _700=b'\xff')},
        'tokens has a string that is not UTF-8',
    ),
    'an empty token': (
        {'tokens': _list('tokens', _700='')},
        r'not a SentencePiece model \(.*empty',
    ),
    'two equal tokens': (
        {'tokens': _list('tokens', _700='the', _701='the')},
        r'not a SentencePiece model \(.*already defined',
    ),
    'no byte pieces': (
        {'token_type': _list('token_type', _31=1)},
        r'not a SentencePiece model \(.*',
    ),
    'a second UNK': (
        {'token_type': _list('token_type', _700=2)},
        r'not a SentencePiece model \(.*',
    ),
    'another kind': ({'model': (_STRING, 'gpt2')}, "model is 'gpt2', wanted"),
    'no kind': ({'model': None}, "model is None, wanted 'llama'"),
    'spaces before text': (
        {'add_space_prefix': (_BOOL, True)},
        'add_space_prefix is True, wanted False',
    ),
    'spaces removed': (
        {'remove_extra_whitespaces': (_BOOL, True)},
        'remove_extra_whitespaces is True, wanted False',
    ),
    'normalised': (
        {'precompiled_charsmap': (_ARRAY, (5, [1, 2]))},
        'precompiled_charsmap normalises text',
    ),
    'no BOS': ({'bos_token_id': None}, 'bos_token_id is None, wanted an id'),
    'BOS outside': (
        {'bos_token_id': (_U32, 800)},
        'bos_token_id is 800, wanted an id below 800',
    ),
    'BOS of a word': (
        {'bos_token_id': (_U32, 700)},
        'bos_token_id is 700, but the type of that piece is 1, wanted 3',
    ),
    'BOS equals EOS': (
        {'bos_token_id': (_U32, 1)},
        'bos_token_id is 1, the id of another special piece',
    ),
    'BOS a string': ({'bos_token_id': (_STRING, '2')}, "bos_token_id is '2'"),
}


@pytest.mark.parametrize('name', _DAMAGED)
def test_a_damaged_vocabulary_is_refused_in_one_line(tmp_path, name):
  changes, match = _DAMAGED[name]
  path = write(tmp_path / 'a.gguf', few(), **changes)
  tracemalloc.start()
  try:
    with pytest.raises(DataError, match=match) as caught:
      tokenizer_lib.Tokenizer(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()
  text = str(caught.value)
  assert '\n' not in text and text.startswith(f'{path}: ')


def test_special_pieces_of_chat_models_are_those_of_the_vocabulary(
    pairs, tmp_path
):
  # EOS is '<start_of_turn>', and BOS is user-defined.
  entries = gguf_files.tokenizer(like_gemma())
  kind, (inner, types) = entries[_PREFIX + 'token_type']
  types = [*types[:2], like_gemma().pieces[0].USER_DEFINED, *types[3:]]
  path = write(
      tmp_path / 'a.gguf',
      like_gemma(),
      eos_token_id=(_U32, 4096),
      token_type=(kind, (inner, types)),
  )
  assert tokenizer_lib.Tokenizer(path).sha256 == pairs[1][0].sha256


def test_other_special_ids_than_gemmas_are_refused(tmp_path):
  path = write(
      tmp_path / 'a.gguf', bos_token_id=(_U32, 1), eos_token_id=(_U32, 2)
  )
  with pytest.raises(UserError, match=r'are \(0, 2, 1, 3\), must be'):
    tokenizer_lib.Tokenizer(path)


def test_a_missing_file_is_missing_input(tmp_path):
  with pytest.raises(MissingInputError, match='none.gguf: no such tokenizer'):
    tokenizer_lib.Tokenizer(tmp_path / 'none.gguf')
