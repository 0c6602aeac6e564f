"""The digests of arrays, on one CPU in C++.

The sums are those of `files.digests`, several times faster than XLA's: hashes
are integer operations, which XLA does not spread over the threads of a CPU, and
the indices of all arrays of one shape are hashed only once.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Shaped
from jumprelu.files import digests
from jumprelu.ops import native


def parts(
    arrays: Sequence[Shaped[Array, '...']],
) -> list[digests.Parts]:
  """Returns each array's `digest_parts`, from C++ where that is possible."""
  results: list = [None] * len(arrays)
  alike: dict[object, list[int]] = {}
  for number, x in enumerate(arrays):
    if _usable(x):
      alike.setdefault((x.shape, *x.devices()), []).append(number)
    else:
      results[number] = digests.digest_parts(x)
  for numbers in alike.values():
    values = _native_parts([arrays[number] for number in numbers])
    for number, value in zip(numbers, values, strict=True):
      results[number] = value
  return results


def _usable(x: Array) -> bool:
  """Returns whether C++ has the digest of an array."""
  devices = list(x.devices())
  return bool(
      len(devices) == 1
      and devices[0].platform == 'cpu'
      and x.ndim
      and x.size
      and x.dtype.itemsize == 4
      and not native.why_not()
  )


@jax.jit
def _native_parts(arrays: list[Shaped[Array, '...']]) -> list[digests.Parts]:
  """Returns the parts of arrays of one shape."""
  rows = arrays[0].shape[:-1]
  prefixes = [
      jnp.broadcast_to(digests.hashed_indices(rows, salt), rows).reshape(-1)
      for salt in digests.SALTS
  ]
  sums, finite = native.digest(arrays, jnp.stack(prefixes, axis=1))
  return [
      digests.Parts(
          sums[i, 0],
          sums[i, 1],
          ~finite[i] & jnp.issubdtype(x.dtype, jnp.inexact),
      )
      for i, x in enumerate(arrays)
  ]
