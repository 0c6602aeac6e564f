"""Digests change with any flipped bit, and not with the sharding."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import sharding
from jumprelu.files import digests


def digest(x):
  records, _ = digests.leaf_records({'x': x})
  return records['x'].digest


def mix(x):
  """Returns MurmurHash3's finaliser of a Python integer."""
  x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
  x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
  return x ^ (x >> 16)


def test_a_digest_agrees_with_python_integers():
  x = np.array([[1.5, -2.0, 0.0], [3.0, np.inf, -0.0]], np.float32)
  words = x.view(np.uint32)
  want = ''
  for salt in (0x243F6A88, 0x85A308D3):
    total = 0
    for (i, j), word in np.ndenumerate(words):
      place = mix((salt * 0x9E3779B1 + i) % 2**32)
      place = mix((place * 0x9E3779B1 + j) % 2**32)
      total += mix(int(word) ^ place)
    want += f'{total % 2**32:08x}'
  assert digest(jnp.asarray(x)) == want


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'uint8'])
def test_every_single_flipped_bit_changes_the_digest(dtype):
  x = np.arange(6, dtype=np.float32).reshape(2, 3).astype(dtype)
  seen = {digest(jnp.asarray(x))}
  for bit in range(x.nbytes * 8):
    raw = bytearray(x.tobytes())
    raw[bit // 8] ^= 1 << bit % 8
    seen.add(digest(jnp.asarray(np.frombuffer(raw, x.dtype).reshape(2, 3))))
  assert len(seen) == x.nbytes * 8 + 1


def test_moved_values_change_the_digest():
  x = jnp.arange(24.0).reshape(2, 3, 4)
  moved = [x[::-1], x[:, ::-1], x[:, :, ::-1], jnp.roll(x, 1), -x * 0]
  assert len({digest(y) for y in [x, *moved]}) == 6


def test_booleans_and_scalars_have_digests():
  assert digest(jnp.array([True, False])) != digest(jnp.array([False, True]))
  assert digest(jnp.int32(3)) != digest(jnp.int32(4))


def test_the_digest_does_not_depend_on_the_sharding():
  x = jax.random.normal(jax.random.key(0), (8, 16, 12))
  mesh = sharding.make_mesh(sharding.Config(tensor=2))
  for axes in (('sequences',), (None, 'heads'), ('sequences', 'heads')):
    y = jax.device_put(x, sharding.named(mesh, *axes))
    assert len(y.sharding.device_set) == 8
    assert digest(y) == digest(x)


def test_non_finite_leaves_are_named():
  leaves = {
      'fine': jnp.ones(3),
      'nan': jnp.array([1.0, jnp.nan]),
      'inf': jnp.array([-jnp.inf], jnp.bfloat16),
      'count': jnp.array([7]),
  }
  _, not_finite = digests.leaf_records(leaves)
  assert not_finite == ['nan', 'inf']


def test_a_record_whose_text_changed_is_refused():
  records, _ = digests.leaf_records({'x': jnp.ones(3)})
  sealed = digests.seal(4, records, {'tokens_kept': 2**70, 'scale': 0.1})
  assert digests.unseal(sealed, 4) == (
      records,
      {'tokens_kept': 2**70, 'scale': 0.1, 'step': 4},
  )
  with pytest.raises(ValueError, match='holds step 4'):
    digests.unseal(sealed, 5)
  sealed['body']['meta']['scale'] = 0.2
  with pytest.raises(ValueError, match='digest of its record'):
    digests.unseal(sealed, 4)


@pytest.mark.parametrize(
    'name, problem',
    [
        ('format', 'its format is None, not 1'),
        ('step', 'its record is incomplete: step is missing'),
        ('leaves', 'its record is incomplete: leaves is missing'),
        ('meta', 'its record is incomplete: meta is missing'),
    ],
)
def test_a_record_without_a_field_is_refused_by_name(name, problem):
  body = digests.seal(4, {}, {})['body']
  del body[name]
  crc = zlib.crc32(json.dumps(body, sort_keys=True).encode())
  with pytest.raises(ValueError, match=problem):
    digests.unseal({'body': body, 'crc32': crc}, 4)


@pytest.mark.parametrize(
    'sealed, problem',
    [
        (None, 'its record is missing'),
        ({}, 'body is missing'),
        ({'body': 3, 'crc32': 0}, 'body is missing'),
        ({'body': {'format': 1}}, 'the digest of its record differs'),
    ],
)
def test_a_record_that_no_save_wrote_is_refused(sealed, problem):
  with pytest.raises(ValueError, match=problem):
    digests.unseal(sealed, 4)


def test_the_digest_of_a_tree_depends_on_its_bits_and_not_on_their_sharding():
  tree = {'a': np.arange(64, dtype=np.float32).reshape(8, 8), 'b': np.ones(3)}
  mesh = sharding.make_mesh(sharding.Config(data=8))
  rows = sharding.named(mesh, 'sequences', None)
  placed = {**jax.device_put(tree), 'a': jax.device_put(tree['a'], rows)}
  digest = digests.tree_digest(jax.device_put(tree))
  assert digests.tree_digest(placed) == digest and len(digest) == 64
  changed = tree['a'].copy()
  changed.view(np.uint32)[3, 4] ^= 1
  for other in (
      {**tree, 'a': changed},
      {**tree, 'a': tree['a'].astype(np.float16)},
      {'a': tree['a'], 'c': tree['b']},
  ):
    assert digests.tree_digest(jax.device_put(other)) != digest
