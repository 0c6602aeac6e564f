"""Digests of device arrays that do not depend on how the arrays are sharded.

A leaf's digest is a sum over its elements, modulo 2^32, of a mix of the
element's bits and its index. Integer sums are exact and commute, so every
sharding gives the same digest, and only the sums leave the devices. (A CRC
would need all bytes of the array, in order, in one process.) The mix at an
index is a bijection of the bits, so damage to a single element always changes
the sum. Other damage remains unnoticed with a probability of 2^-64, because
there are two sums with different salts.
"""

from collections.abc import Mapping
import hashlib
import json
import os
from typing import Any, NamedTuple
import zlib

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Shaped

_FORMAT = 1
_SALTS = (0x243F6A88, 0x85A308D3)


class LeafRecord(NamedTuple):
  """The dtype, shape and digest of one array."""

  dtype: str
  shape: tuple[int, ...]
  digest: str


def named_leaves(state: Any) -> dict[str, Any]:
  """Returns the leaves by dotted path, in the tree's order."""
  leaves = {
      jax.tree_util.keystr(path, simple=True, separator='.'): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }
  if len(leaves) != len(jax.tree.leaves(state)):
    raise ValueError('two leaves of the state have the same name')
  return leaves


def abstract_leaves(state: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes, dtypes and shardings of the leaves."""
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
) -> tuple[dict[str, LeafRecord], list[str]]:
  """Returns each leaf's record, and the names of the non-finite leaves.

  Collective: all processes call it with the same leaves.
  """
  # All digests are dispatched before the host waits for the first.
  parts = jax.device_get({n: _digest_parts(x) for n, x in leaves.items()})
  records = {
      name: LeafRecord(
          dtype=str(x.dtype),
          shape=tuple(x.shape),
          digest=f'{int(parts[name][0]):08x}{int(parts[name][1]):08x}',
      )
      for name, x in leaves.items()
  }
  return records, [name for name in leaves if parts[name][2]]


def tree_digest(tree: Any) -> str:
  """Returns a SHA-256 over names, dtypes, shapes and bits of all leaves.

  Collective: all processes call it with the same tree.
  """
  records, _ = leaf_records(named_leaves(tree))
  text = json.dumps(records, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def difference(
    records: Mapping[str, LeafRecord],
    wanted: Mapping[str, jax.ShapeDtypeStruct],
) -> str:
  """Returns the first difference in names, dtypes or shapes, or ''."""
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
  """Returns the JSON record that is stored with the arrays."""
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
  """Returns the leaves' records and the meta of a stored record.

  Raises:
    ValueError: The record is missing, damaged, or of another step or format.
  """
  if not isinstance(sealed, dict):
    raise ValueError('its record is missing')
  body = sealed['body']
  if _crc32(body) != sealed['crc32']:
    raise ValueError('the digest of its record differs')
  if body['format'] != _FORMAT:
    raise ValueError(f'its format is {body["format"]}, not {_FORMAT}')
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
def _digest_parts(x: Shaped[Array, '...']) -> tuple[Array, Array, Array]:
  finite = True
  if jnp.issubdtype(x.dtype, jnp.inexact):
    finite = jnp.all(jnp.isfinite(x))
  bits = _bits(x)
  sums = [
      jnp.sum(_mix(bits ^ _hashed_indices(bits.shape, salt)), dtype=jnp.uint32)
      for salt in _SALTS
  ]
  return sums[0], sums[1], jnp.logical_not(finite)


def _bits(x: Array) -> Array:
  """Returns the raw bits as uint32; wider types get a last axis of words."""
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  size = x.dtype.itemsize
  if size >= 4:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)
  word = {1: jnp.uint8, 2: jnp.uint16}[size]
  return jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)


def _hashed_indices(shape: tuple[int, ...], salt: int) -> Array:
  """Returns a hash of each index, axis by axis.

  A linear index could exceed 2^32.
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
