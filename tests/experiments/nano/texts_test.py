"""Texts that no suite read, and chats."""

import json

import pytest

from experiments.nano import chats, texts
from jumprelu import data, lm
from jumprelu.data import corpus, documents

_FUNCTION = '''
def halve(x):
  """Returns half of x, which is
  a number above zero.

  More about it.
  """
  check(x)
  return x / 2


def silent(x):
  return x


def short(x):
  """Says little."""
  return x


class Tool:

  def only_says(self):
    """Does nothing at all, but says so at length."""
'''


def test_pieces_are_whole_lines_and_all_of_them():
  text = ''.join(f'{i} {"x" * (i % 90)}\n' for i in range(300))
  pieces = texts.cut(text)
  assert len(pieces) > 3
  assert ''.join(pieces) == text
  assert all(piece.endswith('\n') for piece in pieces)
  assert texts.cut('\n \n') == []


@pytest.fixture
def library(monkeypatch):
  train = [documents.Document('a.py', 'seen in training\n' * 9)]
  held_out = [documents.Document('b.py', _FUNCTION)]
  monkeypatch.setattr(texts, 'standard_library', lambda: (train, held_out))
  return train, held_out


def _written(folder, name, amount):
  texts.write(name, folder, amount)
  lines = (folder / 'text.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line)['text'] for line in lines]


def test_no_document_of_training_gets_into_a_text(
    library, monkeypatch, tmp_path
):
  train, _ = library
  unseen = ['not seen\n' * 9, 'not seen either\n' * 9]
  both = {'both': lambda: iter([unseen[0], train[0].text, unseen[1]])}
  monkeypatch.setattr(texts, 'TEXTS', both)
  assert _written(tmp_path, 'both', 10_000) == unseen


def test_a_text_is_of_many_documents_and_no_longer_than_asked(
    library, monkeypatch, tmp_path
):
  many = {'many': lambda: (f'{i}\n' * 20_000 for i in range(9))}
  monkeypatch.setattr(texts, 'TEXTS', many)
  found = _written(tmp_path, 'many', 30_000)
  assert 30_000 <= sum(map(len, found)) < 33_000
  assert len({piece[0] for piece in found}) == 4


def test_chats_are_about_held_out_modules_only(library, tmp_path):
  (found,) = _written(tmp_path, 'chats', 10_000)
  assert 'halve' in found


def test_a_chat_shows_a_function_and_says_what_its_author_said():
  (found,) = chats.about([documents.Document('b.py', _FUNCTION)])
  shown, said = found.split(chats.TURN)
  assert shown == 'def halve(x):\n    check(x)\n    return x / 2\n'
  assert said == 'Returns half of x, which is\na number above zero.\n'


def test_a_chat_s_turn_is_the_one_that_packing_writes():
  tokenizer = data.Tokenizer(lm.find('gemma2_nano').tokenizer_path)
  wrap = corpus.make_wrap(tokenizer, data.Config(wrap='chat'))
  for text in ('return (x)', 'pass', 'f"<{x}>"'):
    around = f'{text}\n', 'Says so.\n'
    found = tokenizer.encode(chats.TURN.join(around))
    first, second = map(tokenizer.encode, around)
    assert found == [*first, *wrap.suffix, *second]
