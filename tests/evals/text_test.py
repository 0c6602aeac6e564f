"""The documents of a text's rows, across rows."""

import types

import numpy as np
import pytest

from jumprelu.data import packing
from jumprelu.evals import text

_LENGTH = 8
_TEMPLATE = text.Text(None, np.arange(0), 2, None)


def make_rows(lengths, wrap=packing.PLAIN):
  """Packs documents whose tokens are 10 + their number; no token is left."""
  lots = [[10 + i] * n for i, n in enumerate(lengths)]
  return np.stack(list(packing.pack(lots, _LENGTH, wrap=wrap)))


def make_text(rows, order):
  cache = types.SimpleNamespace(
      sequence_length=_LENGTH, tokens_at=lambda chosen: rows[chosen]
  )
  return _TEMPLATE._replace(cache=cache, rows=np.asarray(order))


@pytest.mark.parametrize(
    'wrap', [packing.PLAIN, packing.Wrap((7,), (8,), eos=False)]
)
def test_documents_are_known_by_number_across_rows_in_any_order(wrap):
  rng = np.random.default_rng(0)
  rows = make_rows(
      [*rng.integers(1, 12, 12), 60, *rng.integers(1, 30, 9)], wrap
  )
  order = rng.permutation(len(rows))[: len(rows) * 2 // 3]
  found = text.documents(make_text(rows, order))
  assert found.shape == (len(order), _LENGTH)
  tokens = rows[order]
  inside = tokens >= 10
  pairs = np.unique(np.stack([found[inside], tokens[inside]], axis=1), axis=0)
  # One number a document.
  assert len(pairs) == len(set(pairs[:, 1]))
  # A chat that ends with its row has no EOS to say so.
  ends = 0 if wrap.eos else (tokens[:, -1] == wrap.suffix[-1:]).sum()
  assert len(set(pairs[:, 0])) >= len(pairs) - ends
  assert len(set(pairs[:, 0])) > len(pairs) / 2


def test_a_document_that_ends_with_its_row_is_not_continued():
  rows = make_rows([_LENGTH - 2, _LENGTH - 2])
  assert (rows[:, -1] == packing.EOS).all()
  found = text.documents(make_text(rows, [0, 1]))
  assert len(set(found[0])) == len(set(found[1])) == 1
  assert found[0, 0] != found[1, 0]


def test_rows_of_a_long_document_are_each_read_once():
  rows = make_rows([1000])
  read = []
  cache = types.SimpleNamespace(
      sequence_length=_LENGTH,
      tokens_at=lambda chosen: read.extend(chosen) or rows[chosen],
  )
  order = np.random.default_rng(1).permutation(len(rows))
  found = text.documents(_TEMPLATE._replace(cache=cache, rows=order))
  padding = rows[order] == packing.PAD
  assert len(set(found[~padding])) == 1
  assert len(read) < 2.1 * len(rows)
