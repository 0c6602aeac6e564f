"""Evaluation texts without training documents, and chats."""

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


def test_pieces_consist_of_whole_lines_and_cover_the_text():
  text = ''.join(f'{i} {"x" * (i % 90)}\n' for i in range(300))
  pieces = texts.make_pieces(text)
  assert len(pieces) > 3
  assert ''.join(pieces) == text
  assert all(piece.endswith('\n') for piece in pieces)
  assert texts.make_pieces('\n \n') == []


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


def test_a_text_contains_no_training_document(library, monkeypatch, tmp_path):
  train, _ = library
  unseen = ['not seen\n' * 9, 'not seen either\n' * 9]
  both = {'both': lambda: iter([unseen[0], train[0].text, unseen[1]])}
  monkeypatch.setattr(texts, 'TEXTS', both)
  assert _written(tmp_path, 'both', 10_000) == unseen


def test_a_text_has_several_documents_and_about_the_requested_length(
    library, monkeypatch, tmp_path
):
  many = {'many': lambda: (f'{i}\n' * 20_000 for i in range(9))}
  monkeypatch.setattr(texts, 'TEXTS', many)
  pieces = _written(tmp_path, 'many', 30_000)
  assert 30_000 <= sum(map(len, pieces)) < 33_000
  assert len({piece[0] for piece in pieces}) == 4


def test_chats_are_about_held_out_modules_only(library, tmp_path):
  (chat,) = _written(tmp_path, 'chats', 10_000)
  assert 'halve' in chat


def test_a_chat_has_a_function_and_the_first_paragraph_of_its_docstring():
  (chat,) = chats.about([documents.Document('b.py', _FUNCTION)])
  source, description = chat.split(chats.TURN)
  assert source == 'def halve(x):\n    check(x)\n    return x / 2\n'
  assert description == 'Returns half of x, which is\na number above zero.\n'


def test_turn_markers_are_tokenised_as_packing_writes_them():
  tokenizer = data.Tokenizer(lm.find('gemma2_nano').tokenizer_path)
  wrap = corpus.make_wrap(tokenizer, data.Config(wrap='chat'))
  for text in ('return (x)', 'pass', 'f"<{x}>"'):
    messages = f'{text}\n', 'Says so.\n'
    tokens = tokenizer.encode(chats.TURN.join(messages))
    first, second = map(tokenizer.encode, messages)
    assert tokens == [*first, *wrap.suffix, *second]
