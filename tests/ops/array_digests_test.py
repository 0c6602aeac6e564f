"""The digests of arrays in C++ are those of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu.files import digests
from jumprelu.ops import array_digests, native


@pytest.fixture(scope='module', autouse=True)
def library():
  """Loads the library."""
  assert not native.why_not()


@pytest.mark.parametrize('dtype', [np.float32, np.int32, np.uint32])
@pytest.mark.parametrize(
    'shape',
    [(1,), (7,), (3, 5), (2, 1, 9), (70_000, 3), (2, 3, 4, 5), (5, 70_001)],
)
def test_sums_are_the_same_for_all_shapes(shape, dtype):
  bits = np.random.default_rng(0).integers(0, 2**32, shape, np.uint32)
  if dtype == np.float32:
    bits &= np.uint32(0xBFFFFFFF)  # finite
  x = jnp.asarray(bits.view(dtype))
  (ours,) = jax.device_get(array_digests._native_parts([x]))
  assert ours == jax.device_get(digests.digest_parts(x))
  assert not ours.not_finite


def test_arrays_of_one_shape_keep_their_results_and_places():
  rng = np.random.default_rng(2)
  shapes = [(3, 2000), (4,), (3, 2000), (5, 7), (3, 2000), (4,)]
  arrays = [
      jnp.asarray(rng.standard_normal(shape).astype(dtype))
      for shape in shapes
      for dtype in (np.float32, np.int32)
  ]
  arrays[4] = arrays[4].at[2, 1999].set(jnp.inf)
  ours = jax.device_get(array_digests.parts(arrays))
  assert ours == jax.device_get([digests.digest_parts(x) for x in arrays])
  assert [i for i, parts in enumerate(ours) if parts.not_finite] == [4]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('place', [0, 13, 200_000])
def test_values_that_are_not_finite_are_noticed(place, value):
  x = np.zeros(200_001, np.float32)
  x[place] = value
  x = jnp.asarray(x)
  assert array_digests._native_parts([x])[0].not_finite
  assert digests.digest_parts(x).not_finite


def test_a_flipped_bit_changes_both_sums():
  rng = np.random.default_rng(1)
  bits = rng.integers(0, 2**30, (40, 50), np.uint32)
  (before,) = array_digests.parts([jnp.asarray(bits)])
  for _ in range(20):
    i, j, k = rng.integers(40), rng.integers(50), rng.integers(32)
    changed = bits.copy()
    changed[i, j] ^= np.uint32(1) << np.uint32(k)
    (after,) = array_digests.parts([jnp.asarray(changed)])
    assert after.first != before.first and after.second != before.second


def test_other_arrays_are_left_to_xla(monkeypatch):
  seen, xla = [], digests.digest_parts
  monkeypatch.setattr(
      array_digests.digests,
      'digest_parts',
      lambda x: seen.append(x.shape) or xla(x),
  )
  devices = jax.devices()
  sharded = jax.device_put(
      jnp.zeros((8, 3)),
      jax.NamedSharding(
          jax.make_mesh((2,), ('a',), devices=devices[:2]),
          jax.P('a'),
      ),
  )
  others = [jnp.float32(1), jnp.zeros((0, 3)), jnp.zeros(3, bool), sharded]
  array_digests.parts([*others, jnp.zeros(3)])
  assert seen == [(), (0, 3), (3,), (8, 3)]
