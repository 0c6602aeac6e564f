"""The split depends on the hash of the key only."""

import hashlib

from jumprelu.data import documents
from jumprelu.data.documents import Document


class _Listed:
  """A source of the listed texts."""

  name = 'listed'

  def __init__(self, *texts):
    self._texts = texts

  def documents(self):
    return (Document(f'{i}', t) for i, t in enumerate(self._texts))

  def describe(self):
    return {}

  def split_key(self, document):
    return document.text

  def size(self):
    return 0

  def summary(self):
    return self.name


def _fraction(key):
  """Returns the key's hash as a fraction in [0, 1), computed independently."""
  digest = hashlib.sha256(key.encode()).digest()
  return sum(b / 256 ** (i + 1) for i, b in enumerate(digest))


def test_a_key_is_held_out_if_its_hash_is_small():
  keys = [f'json/module_{i}.py' for i in range(400)]
  for percent in (1, 10, 50):
    expected = [_fraction(k) < percent / 100 for k in keys]
    assert [documents.is_held_out(k, percent) for k in keys] == expected


def test_about_a_tenth_is_held_out():
  share = sum(documents.is_held_out(str(i), 10) for i in range(5000)) / 5000
  assert abs(share - 0.1) < 0.015


def _few_above(fraction, n):
  keys = [k for k in map(str, range(1000)) if _fraction(k) >= fraction]
  return keys[:n]


def test_the_smallest_hash_of_a_few_documents_is_held_out():
  keys = _few_above(0.1, 6)
  split = documents.make_split(_Listed(*keys), 10)
  held_out = [k for k in keys if split.holds_out(k)]
  assert held_out == [min(keys, key=_fraction)]


def test_no_document_is_added_if_the_hash_holds_some_out():
  keys = [*_few_above(0.1, 6), *(k for k in '0123456789' if _fraction(k) < 0.3)]
  split = documents.make_split(_Listed(*keys), 30)
  for key in keys:
    assert split.holds_out(key) == (_fraction(key) < 0.3)
  assert any(split.holds_out(k) for k in keys)


def test_copies_of_one_document_are_not_split():
  (key,) = _few_above(0.5, 1)
  split = documents.make_split(_Listed(key, key, key), 10)
  assert not split.holds_out(key)
