"""Digests of device arrays that do not depend on how the arrays are sharded.

The digest of an array is a pair of sums, modulo 2^32, over the array's words of
at most 32 bits. Each word is hashed together with its index before it is added.
Integer sums are exact in any order, so every sharding results in the same
digest, and only the sums leave the devices. (A CRC would need all bytes of the
array, in order, in one process.) At a fixed index the hash is a bijection, so
damage to a single word always changes the sums. Damage to several words remains
unnoticed with a probability of about 2^-64, because the two sums use different
salts.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import os
from typing import Any, NamedTuple
import zlib

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Shaped

_FORMAT = 1
_FIELDS = ('step', 'leaves', 'meta')
SALTS = (0x243F6A88, 0x85A308D3)


class Parts(NamedTuple):
  """Both sums of an array, and whether a value is not finite."""

  first: Array
  second: Array
  not_finite: Array


class LeafRecord(NamedTuple):
  """The dtype, shape and digest of one array."""

  dtype: str
  shape: tuple[int, ...]
  digest: str


def named_leaves(state: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by dotted path, in the tree's order.

  Raises:
    ValueError: Two leaves have the same dotted path.
  """
  leaves = {
      jax.tree_util.keystr(path, simple=True, separator='.'): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }
  if len(leaves) != len(jax.tree.leaves(state)):
    raise ValueError('two leaves of the state have the same name')
  return leaves


def abstract_leaves(state: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shape, dtype and sharding of each leaf, by dotted path.

  Raises:
    ValueError: A leaf has no sharding.
  """
  leaves = {}
  for name, leaf in named_leaves(state).items():
    if leaf.sharding is None:
      raise ValueError(f'{name} has no sharding')
    leaves[name] = jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=leaf.sharding
    )
  return leaves


def leaf_records(
    leaves: Mapping[str, Array],
    *,
    parts_of: Callable[[Sequence[Array]], Sequence[Parts]] | None = None,
) -> tuple[dict[str, LeafRecord], list[str]]:
  """Returns each leaf's record, and the names of the non-finite leaves.

  Every process must call this function with the same leaves.

  Args:
    leaves: The arrays by name.
    parts_of: A faster function from arrays to the `digest_parts` of each.
  """
  arrays = list(leaves.values())
  # All digests are dispatched before the host waits for the first.
  parts = parts_of(arrays) if parts_of else [digest_parts(x) for x in arrays]
  of = dict(zip(leaves, jax.device_get(parts), strict=True))
  records = {
      name: LeafRecord(
          dtype=str(x.dtype),
          shape=tuple(x.shape),
          digest=f'{int(of[name].first):08x}{int(of[name].second):08x}',
      )
      for name, x in leaves.items()
  }
  return records, [name for name in leaves if of[name].not_finite]


def tree_digest(tree: Any) -> str:
  """Returns a SHA-256 over names, dtypes, shapes and bits of all leaves.

  Every process must call this function with the same tree.
  """
  records, _ = leaf_records(named_leaves(tree))
  text = json.dumps(records, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def difference(
    records: Mapping[str, LeafRecord],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
) -> str:
  """Returns the first difference in names, dtypes or shapes, or ''.

  Args:
    records: The records of a checkpoint's leaves.
    wanted: The leaves that the run needs.
  """
  for name in sorted(records.keys() ^ wanted.keys()):
    return f'only the {"record" if name in records else "run"} has {name}'
  for name, leaf in wanted.items():
    has = f'{records[name].dtype}{list(records[name].shape)}'
    wants = f'{leaf.dtype}{list(leaf.shape)}'
    if has != wants:
      return f'{name} is {has}, the run has {wants}'
  return ''


def seal(
    step: int, records: Mapping[str, LeafRecord], meta: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the JSON record to store with the arrays of a step.

  Args:
    step: The step of the arrays.
    records: The record of each array.
    meta: The caller's own record, of JSON values.
  """
  body = {
      'format': _FORMAT,
      'step': step,
      'leaves': {name: record._asdict() for name, record in records.items()},
      'meta': dict(meta),
  }
  return {'body': body, 'crc32': _crc32(body)}


def unseal(
    sealed: Any, step: int
) -> tuple[dict[str, LeafRecord], dict[str, Any]]:
  """Returns the arrays' records, and the caller's meta with the step added.

  Args:
    sealed: The result of `seal`, as read from the checkpoint.
    step: The step that the record must have.

  Raises:
    ValueError: The record is missing, incomplete, damaged, or of another step
      or format.
  """
  if not isinstance(sealed, dict):
    raise ValueError('its record is missing')
  body = sealed.get('body')
  if not isinstance(body, dict):
    raise ValueError('its record is incomplete: body is missing')
  if _crc32(body) != sealed.get('crc32'):
    raise ValueError('the digest of its record differs')
  if body.get('format') != _FORMAT:
    raise ValueError(f'its format is {body.get("format")}, not {_FORMAT}')
  if absent := [name for name in _FIELDS if name not in body]:
    raise ValueError(f'its record is incomplete: {absent[0]} is missing')
  if body['step'] != step:
    raise ValueError(f'it holds step {body["step"]}: a copied directory')
  records = {
      name: LeafRecord(
          record['dtype'], tuple(record['shape']), record['digest']
      )
      for name, record in body['leaves'].items()
  }
  return records, {**body['meta'], 'step': step}


def _crc32(body: Mapping[str, Any]) -> int:
  text = json.dumps(body, sort_keys=True, allow_nan=False)
  return zlib.crc32(text.encode())


@jax.jit
def digest_parts(x: Shaped[Array, '...']) -> Parts:
  """Returns both sums of an array, and whether a value is not finite."""
  finite = True
  if jnp.issubdtype(x.dtype, jnp.inexact):
    finite = jnp.all(jnp.isfinite(x))
  bits = _bits(x)
  sums = [
      jnp.sum(_mix(bits ^ hashed_indices(bits.shape, salt)), dtype=jnp.uint32)
      for salt in SALTS
  ]
  return Parts(sums[0], sums[1], jnp.logical_not(finite))


def _bits(x: Array) -> Array:
  """Returns the raw bits as uint32; 64-bit types get a last axis of 2 words."""
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  size = x.dtype.itemsize
  if size >= 4:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)
  word = {1: jnp.uint8, 2: jnp.uint16}[size]
  return jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)


def hashed_indices(shape: tuple[int, ...], salt: int) -> Array:
  """Returns a hash of each index of an array of this shape.

  The axes are hashed one after another, because a single linear index could
  overflow uint32.
  """
  hashes = jnp.full((1,) * len(shape), salt, jnp.uint32)
  for axis in range(len(shape)):
    extent = [1] * len(shape)
    extent[axis] = shape[axis]
    index = jax.lax.broadcasted_iota(jnp.uint32, extent, axis)
    hashes = _mix(hashes * jnp.uint32(0x9E3779B1) + index)
  return hashes


def _mix(x: Array) -> Array:
  """Returns MurmurHash3's 32-bit finaliser of `x`, a bijection of uint32."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def sha256_of(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file, in hex."""
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()
