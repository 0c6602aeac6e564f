"""Rows, segments, positions and keep masks equal tables written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.data import packing
from jumprelu.errors import UserError

# The third document is empty. Only the BOS of the second document fits into the
# first row, and the fourth document is split after two tokens.
DOCUMENTS = [[5, 6, 7], [8], [], [9, 10, 11, 12, 13, 14], [15]]
ROWS = [
    [2, 5, 6, 7, 1, 2],
    [2, 8, 1, 2, 9, 10],
    [2, 11, 12, 13, 14, 1],
    [2, 15, 1, 0, 0, 0],
]
SEGMENTS = [
    [1, 1, 1, 1, 1, 2],
    [1, 1, 1, 2, 2, 2],
    [1, 1, 1, 1, 1, 1],
    [1, 1, 1, 0, 0, 0],
]
POSITIONS = [
    [0, 1, 2, 3, 4, 0],
    [0, 1, 2, 0, 1, 2],
    [0, 1, 2, 3, 4, 5],
    [0, 1, 2, 0, 0, 0],
]
KEEP = [
    [0, 1, 1, 1, 0, 0],
    [0, 1, 0, 0, 1, 1],
    [0, 1, 1, 1, 1, 0],
    [0, 1, 0, 0, 0, 0],
]


def _random_documents(seed):
  rng = np.random.default_rng(seed)
  return [rng.integers(4, 99, n).tolist() for n in rng.integers(0, 23, 40)]


def test_rows_equal_the_table():
  rows = list(packing.pack(DOCUMENTS, 6))
  np.testing.assert_array_equal(rows, ROWS)
  assert all(r.dtype == np.int32 for r in rows)


@pytest.mark.parametrize('make', [np.asarray, jnp.asarray])
def test_segments_positions_and_keep_mask_equal_the_table(make):
  rows = make(np.asarray(ROWS, np.int32))
  np.testing.assert_array_equal(packing.segments(rows), SEGMENTS)
  np.testing.assert_array_equal(packing.positions(rows), POSITIONS)
  np.testing.assert_array_equal(packing.keep_mask(rows), KEEP)
  assert packing.segments(rows).dtype == np.int32
  assert packing.positions(rows).dtype == np.int32


def test_leading_axes_are_optional():
  row = np.asarray(ROWS[1], np.int32)
  np.testing.assert_array_equal(packing.positions(row), POSITIONS[1])
  np.testing.assert_array_equal(packing.segments(row), SEGMENTS[1])


def test_a_row_without_a_first_bos_starts_a_segment():
  rows = np.asarray([[7, 8, 2, 9, 0], [0, 2, 5, 0, 6]], np.int32)
  np.testing.assert_array_equal(
      packing.segments(rows), [[1, 1, 2, 2, 0], [0, 2, 2, 0, 2]]
  )
  np.testing.assert_array_equal(
      packing.positions(rows), [[0, 1, 0, 1, 0], [0, 0, 1, 0, 3]]
  )


@pytest.mark.parametrize(
    'function', [packing.segments, packing.positions, packing.keep_mask]
)
def test_numpy_and_jit_agree(function):
  rng = np.random.default_rng(3)
  rows = rng.integers(0, 6, (4, 5, 31)).astype(np.int32)
  by_jax = jax.jit(function)(jnp.asarray(rows))
  by_numpy = function(rows)
  assert isinstance(by_numpy, np.ndarray)
  assert by_jax.dtype == by_numpy.dtype
  np.testing.assert_array_equal(by_jax, by_numpy)


@pytest.mark.parametrize('length', [2, 3, 7, 16, 64])
def test_every_token_is_kept_exactly_once_and_in_order(length):
  documents = _random_documents(length)
  rows = np.stack(list(packing.pack(documents, length)))
  kept = rows[packing.keep_mask(rows)]
  assert kept.tolist() == sum(documents, [])


@pytest.mark.parametrize('length', [2, 3, 7, 16, 64])
def test_every_row_starts_with_bos_and_only_the_last_is_padded(length):
  rows = np.stack(list(packing.pack(_random_documents(length), length)))
  assert (rows[:, 0] == 2).all()
  assert (rows[:-1] != 0).all()
  padding = rows[-1] == 0
  assert padding.tolist() == sorted(padding.tolist())


def test_there_is_one_eos_per_nonempty_document():
  documents = _random_documents(1)
  rows = np.stack(list(packing.pack(documents, 9)))
  assert (rows == 1).sum() == sum(bool(d) for d in documents)


def test_segments_never_join_two_documents():
  documents = [[10 + i] * n for i, n in enumerate([3, 9, 1, 14, 2, 30])]
  for row in packing.pack(documents, 8):
    numbers = packing.segments(row)
    for number in set(numbers.tolist()) - {0}:
      inside = set(row[numbers == number].tolist()) - {1, 2}
      assert len(inside) <= 1


def test_a_packer_continues_another_ones_open_row():
  documents = _random_documents(5)
  first = packing.Packer(11)
  rows = [r for d in documents[:17] for r in first.add(d)]
  second = packing.Packer(11, first.open_row)
  rows += [r for d in documents[17:] for r in second.add(d)]
  rows += second.finish()
  np.testing.assert_array_equal(rows, list(packing.pack(documents, 11)))


def test_a_row_of_one_token_is_refused():
  with pytest.raises(UserError, match='sequence_length=1'):
    list(packing.pack([[5]], 1))


# BOS, prefix 7 8, text, suffix 9. The second document does not fit into the
# rest of the first row, which is padded; the third is split into two pieces.
WRAP = packing.Wrap(prefix=(7, 8), suffix=(9,), eos=False)
WRAPPED_DOCUMENTS = [[20, 21], [22, 23, 24], [], [25, 26, 27, 28, 29]]
WRAPPED_ROWS = [
    [2, 7, 8, 20, 21, 9, 2, 7, 8, 22, 9],
    [2, 7, 8, 23, 24, 9, 2, 7, 8, 25, 9],
    [2, 7, 8, 26, 27, 28, 29, 9, 0, 0, 0],
]
WRAPPED_KEEP = [
    [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1],
    [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1],
    [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0],
]
# Rows of nine tokens: after the first piece a row has no room for another one.
NARROW_ROWS = [
    [2, 7, 8, 20, 21, 9, 0, 0, 0],
    [2, 7, 8, 22, 23, 24, 9, 0, 0],
    [2, 7, 8, 25, 26, 27, 28, 29, 9],
]


@pytest.mark.parametrize('make', [np.asarray, jnp.asarray])
def test_wrapped_rows_and_their_keep_mask_equal_the_table(make):
  rows = list(packing.pack(WRAPPED_DOCUMENTS, 11, wrap=WRAP))
  np.testing.assert_array_equal(rows, WRAPPED_ROWS)
  mask = packing.keep_mask(make(np.stack(rows)), WRAP.prefix)
  np.testing.assert_array_equal(mask, WRAPPED_KEEP)
  narrow = list(packing.pack(WRAPPED_DOCUMENTS, 9, wrap=WRAP))
  np.testing.assert_array_equal(narrow, NARROW_ROWS)


def test_a_prefix_is_masked_only_if_complete_and_directly_after_bos():
  rows = np.asarray(
      [
          [7, 8, 2, 7, 5, 2, 7, 8, 7, 8, 6],
          [2, 8, 7, 8, 2, 7, 8, 2, 9, 2, 7],
      ],
      np.int32,
  )
  wanted = [
      [1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1],
      [0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1],
  ]
  np.testing.assert_array_equal(packing.keep_mask(rows, (7, 8)), wanted)
  by_jax = jax.jit(packing.keep_mask, static_argnums=1)(rows, (7, 8))
  np.testing.assert_array_equal(by_jax, wanted)


@pytest.mark.parametrize('length', [5, 6, 9, 31])
def test_every_token_is_kept_once_with_the_suffix_of_its_piece(length):
  documents = [[t + 10 for t in d] for d in _random_documents(length)]
  rows = np.stack(list(packing.pack(documents, length, wrap=WRAP)))
  kept = rows[packing.keep_mask(rows, WRAP.prefix)]
  assert kept[kept != 9].tolist() == sum(documents, [])
  assert (kept == 9).sum() == (rows == 2).sum()


def test_a_wrapped_packer_continues_another_ones_open_row():
  documents = _random_documents(5)
  first = packing.Packer(11, wrap=WRAP)
  rows = [r for d in documents[:17] for r in first.add(d)]
  second = packing.Packer(11, first.open_row, wrap=WRAP)
  rows += [r for d in documents[17:] for r in second.add(d)]
  rows += second.finish()
  whole = list(packing.pack(documents, 11, wrap=WRAP))
  np.testing.assert_array_equal(rows, whole)


def test_a_row_without_room_for_text_between_the_turns_is_refused():
  with pytest.raises(UserError, match='3 tokens around.*choose 5 or more'):
    packing.Packer(4, wrap=WRAP)
