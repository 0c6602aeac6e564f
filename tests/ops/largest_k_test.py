"""The largest of many numbers, against sorting."""

import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.ops import largest_k


@pytest.mark.parametrize('k', [0, 1, 7, 30, 99])
def test_each_rows_largest_positive_values_are_marked(k):
  values = np.random.default_rng(k).normal(size=(3, 5, 50)).astype(np.float32)
  values[0, 0, :3] = -0.0, np.inf, np.finfo(np.float32).tiny
  # k is traced, because it differs between the members of a program.
  actual = np.asarray(jax.jit(largest_k.largest)(values, jnp.float32(k)))
  for index in np.ndindex(3, 5):
    row = values[index]
    largest = np.argsort(-row, kind='stable')[:k]
    expected = np.zeros(50, bool)
    expected[largest] = row[largest] > 0
    np.testing.assert_array_equal(actual[index], expected)


def test_the_largest_of_the_whole_array_are_marked():
  values = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
  actual = np.asarray(largest_k.largest(jnp.asarray(values), 40, whole=True))
  np.testing.assert_array_equal(actual, values >= np.sort(values, None)[-40])


@pytest.mark.parametrize('k', [0, 1, 40, 399, 400, 401, np.float32(39.5)])
def test_counts_by_row_select_the_same_as_a_single_count(monkeypatch, k):
  values = np.random.default_rng(0).normal(size=(2, 4, 50)).astype(np.float32)
  values[0, 0] = 1.0
  expected = largest_k.largest(jnp.asarray(values), k, whole=True)
  monkeypatch.setattr(largest_k.counts, 'LIMIT', 1)
  actual = largest_k.largest(jnp.asarray(values), k, whole=True)
  np.testing.assert_array_equal(actual, expected)


def _values(kind, rows=20, latents=300):
  """Returns random values with ties, NaN or other special values."""
  values = np.random.default_rng(0).normal(size=(rows, latents))
  if kind == 'ties':
    values = np.round(4 * values) / 4
  if kind == 'special':
    values[0, :5] = -0.0, np.inf, np.nan, np.finfo(np.float32).tiny, -np.inf
    values[1], values[2], values[3] = np.nan, 0.0, -1.0
  if kind == 'few positive':
    values = np.where(values > 2, values, -(values**2))
  if kind == 'neighbours':  # The largest values are in a few groups.
    values[:, ::10] += 5
  return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize(
    'kind', ['plain', 'ties', 'special', 'few positive', 'neighbours']
)
@pytest.mark.parametrize('whole', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_the_largest_among_candidates_are_the_largest_of_all(
    kind, whole, masked
):
  values = _values(kind)
  rows = jnp.arange(20) % 3 != 1 if masked else None
  narrowed = jax.jit(
      largest_k.narrowed, static_argnames=('whole', 'group', 'limit')
  )
  for k in (0, 1, 7.5, 30, 290, 301):
    k = jnp.float32(k * 20 if whole else k)
    expected = largest_k.largest(values, k, whole=whole, rows=rows)
    assert masked is False or not np.asarray(expected)[1].any()
    # Groups that do not divide a row, and limits below and above the number of
    # candidates of most rows.
    for group, limit in ((32, 256), (7, 40), (1, 8), (1000, 512)):
      actual = narrowed(
          values, k, whole=whole, rows=rows, group=group, limit=limit
      )
      np.testing.assert_array_equal(actual, expected, str((k, group, limit)))


def test_few_candidates_are_searched_instead_of_all_values():
  searched = []
  search = largest_k._search

  def record(values, k, *, whole):
    searched.append(values.shape)
    return search(values, k, whole=whole)

  with mock.patch.object(largest_k, '_search', record):
    # Outside of jit both branches are traced, so only their order shows.
    largest_k.narrowed(_values('plain'), 3, group=32, limit=16)
  assert searched == [(20, 9), (20, 16), (20, 300)]


def _sums(jaxpr):
  """Yields the operand and the number of summands of each integer sum."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'reduce_sum':
      (x,) = (v.aval for v in equation.invars)
      if jnp.issubdtype(x.dtype, jnp.integer):
        yield x, math.prod(x.shape[axis] for axis in equation.params['axes'])
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', None)
      if inner is not None:
        yield from _sums(inner)


def test_no_sum_of_a_mask_can_exceed_int32():
  shape = jax.ShapeDtypeStruct((4096, 2**20), jnp.float32)
  program = jax.make_jaxpr(lambda x: largest_k.largest(x, 9, whole=True))
  sums = list(_sums(program(shape).jaxpr))
  assert sums
  for x, entries in sums:
    assert x.shape != shape.shape or entries < 2**31


def test_equal_values_at_the_last_place_are_all_marked():
  values = jnp.asarray([3.0, 1.0, 2.0, 2.0, 0.0])
  np.testing.assert_array_equal(
      largest_k.largest(values, 2), [True, False, True, True, False]
  )


def test_the_mask_itself_has_no_gradient():
  gradient = jax.grad(
      lambda x: jnp.where(largest_k.largest(x, 2), 3 * x, 0.0).sum()
  )
  np.testing.assert_array_equal(
      gradient(jnp.asarray([5.0, -1.0, 2.0, 1.0])), [3.0, 0.0, 3.0, 0.0]
  )
