"""The digests of arrays, on one CPU in C++.

The sums are those of `files.digests`, several times faster than XLA's: hashes
are integer operations, which XLA does not spread over the threads of a CPU.
"""

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Shaped
from jumprelu.files import digests
from jumprelu.ops import native


def parts(x: Shaped[Array, '...']) -> tuple[Array, Array, Array]:
  """Returns `digests.digest_parts`, in C++ where that is possible."""
  devices = list(x.devices())
  usable = (
      len(devices) == 1
      and devices[0].platform == 'cpu'
      and x.ndim
      and x.size
      and x.dtype.itemsize == 4
      and not native.why_not()
  )
  return _native_parts(x) if usable else digests.digest_parts(x)


@jax.jit
def _native_parts(x: Shaped[Array, '...']) -> tuple[Array, Array, Array]:
  rows = x.shape[:-1]
  prefixes = [
      jnp.broadcast_to(digests.hashed_indices(rows, salt), rows).reshape(-1)
      for salt in digests.SALTS
  ]
  sums, finite = native.digest(x, jnp.stack(prefixes, axis=1))
  if not jnp.issubdtype(x.dtype, jnp.inexact):
    finite = jnp.bool_(True)
  return sums[0], sums[1], jnp.logical_not(finite)
