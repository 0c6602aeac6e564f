"""Absorption where the answer is planted: which child took which word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import data, errors, lm
from jumprelu.data import packing
from jumprelu.evals.measures import absorbed, absorption, labelled, spelling
from tests.evals import planted

# Words are tokens from 4 on; word i begins with letter i % 3.
_COUNT = 60
_SIZE = 3 + _COUNT
# Test words: numbers in the last third. All of letter a: 42, 45, ..., 57.
_TEST = np.arange(_COUNT) >= 36
_TAKEN = (36, 45)  # Of letter a, by a child each, altogether.
_SHARED = (37, 40, 43, 46)  # Of letter b: half by the parent.


def axis(i):
  return np.eye(_SIZE)[i]


def table():
  """A word is its letter and something of its own."""
  rows = np.zeros((4 + _COUNT, _SIZE))
  for i in range(_COUNT):
    rows[4 + i] = axis(i % 3) + 0.5 * axis(3 + i)
  rows[:4] = 50  # Nothing that is not a word is read.
  return rows


def member(absorbing=True):
  """A parent a letter; c's has split by halves of its words."""
  parents = [axis(0).copy(), axis(1).copy()]
  children = []
  if absorbing:
    for i in _TAKEN:
      parents[0] -= 4 * axis(3 + i)
      children.append((2 * axis(3 + i), axis(0) + 0.5 * axis(3 + i)))
    for i in _SHARED:
      parents[1] -= axis(3 + i)
      # Half of the letter; a cosine that is high enough.
      children.append((axis(3 + i), 2 * (axis(1) + 0.5 * axis(3 + i)) / 2))
  halves = []
  for half in range(2):
    reads = axis(2).copy()
    for i in range(_COUNT):
      if i % 3 == 2 and i // 3 % 2 == half:
        reads -= 4 * axis(3 + i)
    halves.append((reads, axis(2)))
  pairs = [(parents[0], axis(0)), (parents[1], axis(1)), *halves, *children]
  return planted.make_sae(*zip(*pairs, strict=True))


def words():
  """Two prompts a row: BOS, other words, the word."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(4, 4 + _COUNT, (_COUNT // 2, 12)).astype(np.int32)
  tokens[:, [0, 4]] = packing.BOS
  tokens[:, 9:] = packing.PAD
  ends = np.tile([3, 8], _COUNT // 2)
  rows = np.repeat(np.arange(_COUNT // 2), 2)
  tokens[rows, ends] = 4 + np.arange(_COUNT)
  number, order = np.arange(_COUNT) % 3, np.arange(_COUNT) // 3
  # In training b's words, most of them; in the test mostly a's.
  space = (number == 1) & (order % 3 > 0) & ~_TEST
  space |= _TEST & (order > np.asarray([13, 17, 99])[number])
  return spelling.Words(
      tuple(map(str, range(_COUNT))),
      tokens,
      rows,
      ends,
      ('a', 'b', 'c', 'capital', 'space'),
      # Capitals are letter a's words.
      np.stack([*(number == i for i in range(3)), number == 0, space], 1),
      _TEST,
  )


@functools.cache
def measured():
  context = planted.make_context(
      table(), member(), member(absorbing=False), sequences=7
  )
  return absorption.of_words(context, words())


def letter(name, path='m0'):
  (found,) = [
      r for r in measured().table if r['feature'] == name and r['path'] == path
  ]
  return found


def test_words_taken_by_a_child_are_absorbed_in_full():
  found = letter('a')
  assert found['probe_f1'] == found['main_f1'] == 1
  assert found['words_known'] == 8 and found['main_latents'] == '0'
  assert found['fraction'] == found['full_rate'] == 2 / 8


def test_words_shared_with_a_child_are_absorbed_by_half():
  found = letter('b')
  assert found['full_rate'] == 0 and found['main_latents'] == '1'
  np.testing.assert_allclose(found['fraction'], 4 / 8 / 2, rtol=0.05)


def test_a_split_letter_has_two_main_latents_and_is_not_absorbed():
  found = letter('c')
  assert set(found['main_latents'].split()) == {'2', '3'}
  assert found['split_latents'] == 2 and found['main_f1'] == 1
  assert found['fraction'] == found['full_rate'] == 0


def test_without_children_nothing_is_absorbed():
  for name in 'abc':
    assert letter(name, 'm1')['fraction'] == 0
  one, none = measured().columns
  assert none['absorption_fraction'] == none['absorption_full_rate'] == 0
  np.testing.assert_allclose(
      one['absorption_fraction'],
      np.mean([letter(name)['fraction'] for name in 'abc']),
  )
  assert one['absorption_known'] == 3 and one['absorption_words'] == 24
  assert (
      one['absorption_form_fraction'] == letter('capital')['fraction'] == 1 / 4
  )
  assert one['absorption_probe_f1'] == 1
  assert one['absorption_split_latents'] == 4 / 3


def test_what_the_activations_do_not_know_has_no_fraction():
  found = letter('space')
  assert 0 < found['probe_f1'] < 0.5 and found['words_known']
  assert np.isnan(found['fraction']) and np.isnan(found['full_rate'])
  assert measured().columns[0]['absorption_form_known'] == 1


def test_fractions_by_hand():
  parts = absorbed.Parts(
      whole=np.asarray([10.0, 10, 10, 10, 10, -1, 0]),
      main=np.asarray([10.0, 0, 4, 4, 8, 0, 0]),
      main_size=np.asarray([10.0, 0, 4, 0, 8, 0, 0]),
      absorbers=np.asarray([9.0, 5, 3, 9, 5, 3, 0]),
      top=np.asarray([10.0, 5, 4, 9, 8, 3, 0]),
      top_cosine=np.asarray([0.5, 0.02, 0.5, 0.5, 0.5, 0.5, 0.5]),
  )
  np.testing.assert_allclose(parts.fraction(), [0, 1, 0, 6 / 10, 2 / 10, 0, 0])
  assert parts.full().tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_parts_equal_plain_numpy():
  rng = np.random.default_rng(3)
  latents = np.maximum(rng.normal(size=(5, 4, 30)), 0)
  x, W_dec = rng.normal(size=(5, 4, 8)), rng.normal(size=(30, 8))
  directions = rng.normal(size=(2, 8))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  main, number = rng.random((2, 30)) < 0.1, rng.integers(0, 2, (5, 4))
  found = jax.jit(absorbed.Parts.from_latents)(
      *(jnp.asarray(a, jnp.float32) for a in (latents, x)),
      W_dec=jnp.asarray(W_dec, jnp.float32),
      directions=jnp.asarray(directions, jnp.float32),
      main=jnp.asarray(main),
      features=jnp.asarray(number),
  )
  for at in np.ndindex(5, 4):
    d, own = directions[number[at]], main[number[at]]
    part = latents[at] * (W_dec @ d)
    cosine = W_dec @ d / np.linalg.norm(W_dec, axis=1)
    others = sorted(part[~own & (cosine >= 0.1) & (part > 0)])[-3:]
    top = part.argmax()
    wanted = (
        x[at] @ d, part[own].sum(), latents[at][own].max(initial=0),
        sum(others), part[top], cosine[top],
    )  # fmt: skip
    np.testing.assert_allclose(
        [a[at] for a in found], wanted, rtol=1e-4, atol=1e-5
    )


def layout(length=64, prefix=()):
  path = lm.find('gemma2_nano').tokenizer_path
  return labelled.Layout(data.Tokenizer(path), length, prefix)


def test_prompts_ask_for_first_letters_and_end_with_the_word():
  given = layout(prefix=(7, 8))
  found = spelling.make_words(given, words=60, shots=3)
  assert len(found.words) == 60 and 10 < found.test.sum() < 40
  train = {
      w.strip() for w, t in zip(found.words, found.test, strict=True) if not t
  }
  spelled = [w.strip().lower() for w in found.words]
  for word in set(spelled):
    assert len(set(found.test[np.asarray(spelled) == word])) == 1
  for i, word in enumerate(found.words):
    row, end = found.tokens[found.rows[i]], found.positions[i]
    start = np.flatnonzero(row[:end] == packing.BOS)[-1]
    assert tuple(row[start + 1 : start + 3]) == (7, 8)
    text = given.tokenizer.decode(row[start + 3 : end + 1].tolist())
    *shots, last = text.removeprefix('\n').split('\n')
    assert last == word and len(shots) == 3
    bare = word.strip()
    wanted = {bare[0].lower()}
    wanted |= {'space'} if word != bare else set()
    wanted |= {'capital'} if bare[0].isupper() else set()
    wanted |= {'capitals'} if bare.isupper() else set()
    assert wanted == {
        name
        for name, has in zip(found.features, found.labels[i], strict=True)
        if has
    }
    for shot in shots:
      other, _, answer = shot.partition(' has the first letter: ')
      assert other.strip() in train and other != word
      assert answer == other.strip()[0].upper()


def test_too_little_room_and_too_few_words_are_told():
  with pytest.raises(errors.UserError, match='a row has 20; lower measure'):
    spelling.make_words(layout(20), words=60, shots=3)
  with pytest.raises(errors.UserError, match='too few for 9 examples'):
    spelling.make_words(layout(), words=8, shots=9)
  context = planted.make_context(table(), member(), sequences=7)
  few = words().select(np.arange(_COUNT) < 9)
  with pytest.raises(errors.UserError, match='no feature has enough words'):
    absorption.of_words(context, few)
