"""Absorption with planted child latents that absorb known words."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import data, errors, lm
from jumprelu.data import packing
from jumprelu.evals.measures import absorbed, absorption, labelled, spelling
from tests.evals import planted

# Word i is token 4 + i and starts with letter i % 3.
_COUNT = 60
_SIZE = 3 + _COUNT
# Test words are words 36 to 59.
_TEST = np.arange(_COUNT) >= 36
# Words of letter a, each absorbed in full by a child.
_FULL = (36, 45)
# Words of letter b, each absorbed by half.
_HALF = (37, 40, 43, 46)


def axis(i):
  return np.eye(_SIZE)[i]


def table():
  """Returns activations: the axis of the letter plus an axis of the word."""
  rows = np.zeros((4 + _COUNT, _SIZE))
  for i in range(_COUNT):
    rows[4 + i] = axis(i % 3) + 0.5 * axis(3 + i)
  rows[:4] = 50  # Special tokens must not matter.
  return rows


def member(absorbing=True):
  """Returns a member with a parent latent per letter; letter c has split.

  With `absorbing`, child latents absorb the words in `_FULL` and `_HALF`. Each
  of the two latents of letter c reads half of the words.
  """
  parents = [axis(0).copy(), axis(1).copy()]
  children = []
  if absorbing:
    for i in _FULL:
      parents[0] -= 4 * axis(3 + i)
      children.append((2 * axis(3 + i), axis(0) + 0.5 * axis(3 + i)))
    for i in _HALF:
      parents[1] -= axis(3 + i)
      # Writes half of the letter; its cosine is above the threshold.
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
  """Returns words at the ends of prompts, two prompts per row."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(4, 4 + _COUNT, (_COUNT // 2, 12)).astype(np.int32)
  tokens[:, [0, 4]] = packing.BOS
  tokens[:, 9:] = packing.PAD
  ends = np.tile([3, 8], _COUNT // 2)
  rows = np.repeat(np.arange(_COUNT // 2), 2)
  tokens[rows, ends] = 4 + np.arange(_COUNT)
  number, order = np.arange(_COUNT) % 3, np.arange(_COUNT) // 3
  # In training mostly words of letter b have a space, in the test of a, so
  # that the probe fails.
  space = (number == 1) & (order % 3 > 0) & ~_TEST
  space |= _TEST & (order > np.asarray([13, 17, 99])[number])
  return spelling.Words(
      tuple(map(str, range(_COUNT))),
      tokens,
      rows,
      ends,
      ('a', 'b', 'c', 'capital', 'space'),
      # All words of letter a have a capital.
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
  (row,) = [
      r for r in measured().table if r['feature'] == name and r['path'] == path
  ]
  return row


def test_words_represented_only_by_a_child_are_absorbed_in_full():
  row = letter('a')
  assert row['probe_f1'] == row['main_f1'] == 1
  assert row['words_known'] == 8 and row['main_latents'] == '0'
  assert row['fraction'] == row['full_rate'] == 2 / 8


def test_words_shared_by_parent_and_child_are_absorbed_by_half():
  row = letter('b')
  assert row['full_rate'] == 0 and row['main_latents'] == '1'
  np.testing.assert_allclose(row['fraction'], 4 / 8 / 2, rtol=0.05)


def test_a_split_letter_has_two_main_latents_and_is_not_absorbed():
  row = letter('c')
  assert set(row['main_latents'].split()) == {'2', '3'}
  assert row['split_latents'] == 2 and row['main_f1'] == 1
  assert row['fraction'] == row['full_rate'] == 0


def test_without_children_nothing_is_absorbed():
  for name in 'abc':
    assert letter(name, 'm1')['fraction'] == 0
  absorbing, plain = measured().columns
  assert plain['absorption_fraction'] == plain['absorption_full_rate'] == 0
  np.testing.assert_allclose(
      absorbing['absorption_fraction'],
      np.mean([letter(name)['fraction'] for name in 'abc']),
  )
  assert absorbing['absorption_known'] == 3
  assert absorbing['absorption_words'] == 24
  assert letter('capital')['fraction'] == 1 / 4
  assert absorbing['absorption_form_fraction'] == 1 / 4
  assert absorbing['absorption_probe_f1'] == 1
  assert absorbing['absorption_split_latents'] == 4 / 3


def test_a_feature_that_activations_do_not_represent_has_no_fraction():
  row = letter('space')
  assert 0 < row['probe_f1'] < 0.5 and row['words_known']
  assert np.isnan(row['fraction']) and np.isnan(row['full_rate'])
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
  parts = jax.jit(absorbed.Parts.from_latents)(
      *(jnp.asarray(a, jnp.float32) for a in (latents, x)),
      W_dec=jnp.asarray(W_dec, jnp.float32),
      directions=jnp.asarray(directions, jnp.float32),
      main=jnp.asarray(main),
      features=jnp.asarray(number),
  )
  for at in np.ndindex(5, 4):
    d, main_mask = directions[number[at]], main[number[at]]
    part = latents[at] * (W_dec @ d)
    cosine = W_dec @ d / np.linalg.norm(W_dec, axis=1)
    others = sorted(part[~main_mask & (cosine >= 0.1) & (part > 0)])[-3:]
    top = part.argmax()
    wanted = (
        x[at] @ d, part[main_mask].sum(), latents[at][main_mask].max(initial=0),
        sum(others), part[top], cosine[top],
    )  # fmt: skip
    np.testing.assert_allclose(
        [a[at] for a in parts], wanted, rtol=1e-4, atol=1e-5
    )


def layout(length=64, prefix=()):
  path = lm.find('gemma2_nano').tokenizer_path
  return labelled.Layout(data.Tokenizer(path), length, prefix)


def test_prompts_ask_for_first_letters_and_end_with_the_word():
  layout_with_prefix = layout(prefix=(7, 8))
  made = spelling.make_words(layout_with_prefix, words=60, shots=3)
  assert len(made.words) == 60 and 10 < made.test.sum() < 40
  train = {
      w.strip() for w, t in zip(made.words, made.test, strict=True) if not t
  }
  spelled = [w.strip().lower() for w in made.words]
  for word in set(spelled):
    assert len(set(made.test[np.asarray(spelled) == word])) == 1
  for i, word in enumerate(made.words):
    row, end = made.tokens[made.rows[i]], made.positions[i]
    start = np.flatnonzero(row[:end] == packing.BOS)[-1]
    assert tuple(row[start + 1 : start + 3]) == (7, 8)
    text = layout_with_prefix.tokenizer.decode(
        row[start + 3 : end + 1].tolist()
    )
    *shots, last = text.removeprefix('\n').split('\n')
    assert last == word and len(shots) == 3
    bare = word.strip()
    wanted = {bare[0].lower()}
    wanted |= {'space'} if word != bare else set()
    wanted |= {'capital'} if bare[0].isupper() else set()
    wanted |= {'capitals'} if bare.isupper() else set()
    assert wanted == {
        name
        for name, has in zip(made.features, made.labels[i], strict=True)
        if has
    }
    for shot in shots:
      other, _, answer = shot.partition(' has the first letter: ')
      assert other.strip() in train and other != word
      assert answer == other.strip()[0].upper()


def test_too_long_prompts_and_too_few_words_are_refused():
  with pytest.raises(errors.UserError, match='a row has 20; lower measure'):
    spelling.make_words(layout(20), words=60, shots=3)
  with pytest.raises(errors.UserError, match='too few for 9 examples'):
    spelling.make_words(layout(), words=8, shots=9)
  context = planted.make_context(table(), member(), sequences=7)
  few = words().select(np.arange(_COUNT) < 9)
  with pytest.raises(errors.UserError, match='no feature has enough words'):
    absorption.of_words(context, few)
