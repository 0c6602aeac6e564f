"""Document numbers of a text's tokens, across rows."""

import types

import numpy as np
import pytest

from jumprelu.data import packing
from jumprelu.evals import text

_LENGTH = 8
_TEMPLATE = text.Text(None, np.arange(0), 2, None)


def make_rows(lengths, wrap=packing.PLAIN):
  """Returns packed documents whose tokens are 10 + the document's number."""
  documents = [[10 + i] * n for i, n in enumerate(lengths)]
  return np.stack(list(packing.pack(documents, _LENGTH, wrap=wrap)))


def make_text(rows, order):
  cache = types.SimpleNamespace(
      sequence_length=_LENGTH, tokens_at=lambda chosen: rows[chosen]
  )
  return _TEMPLATE._replace(cache=cache, rows=np.asarray(order))


@pytest.mark.parametrize(
    'wrap', [packing.PLAIN, packing.Wrap((7,), (8,), eos=False)]
)
def test_document_numbers_are_consistent_across_rows_in_any_order(wrap):
  rng = np.random.default_rng(0)
  rows = make_rows(
      [*rng.integers(1, 12, 12), 60, *rng.integers(1, 30, 9)], wrap
  )
  order = rng.permutation(len(rows))[: len(rows) * 2 // 3]
  numbers = text.documents(make_text(rows, order))
  assert numbers.shape == (len(order), _LENGTH)
  tokens = rows[order]
  inside = tokens >= 10
  pairs = np.unique(np.stack([numbers[inside], tokens[inside]], axis=1), axis=0)
  # Each document has one number.
  assert len(pairs) == len(set(pairs[:, 1]))
  # Chats have no EOS, so a chat that ends with its row counts as continued.
  ends = 0 if wrap.eos else (tokens[:, -1] == wrap.suffix[-1:]).sum()
  assert len(set(pairs[:, 0])) >= len(pairs) - ends
  assert len(set(pairs[:, 0])) > len(pairs) / 2


def test_a_document_with_eos_at_the_end_of_its_row_is_not_continued():
  rows = make_rows([_LENGTH - 2, _LENGTH - 2])
  assert (rows[:, -1] == packing.EOS).all()
  numbers = text.documents(make_text(rows, [0, 1]))
  assert len(set(numbers[0])) == len(set(numbers[1])) == 1
  assert numbers[0, 0] != numbers[1, 0]


def test_rows_of_a_long_document_are_each_read_once():
  rows = make_rows([1000])
  read = []
  cache = types.SimpleNamespace(
      sequence_length=_LENGTH,
      tokens_at=lambda chosen: read.extend(chosen) or rows[chosen],
  )
  order = np.random.default_rng(1).permutation(len(rows))
  numbers = text.documents(_TEMPLATE._replace(cache=cache, rows=order))
  padding = rows[order] == packing.PAD
  assert len(set(numbers[~padding])) == 1
  assert len(read) < 2.1 * len(rows)
