"""Dropped rows: special tokens, non-finite values and very large norms."""

from collections.abc import Mapping

import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Bool, Float, Int, Int32
from jumprelu.data import packing

# A row whose norm exceeds this many times its tap's scale is dropped.
MAX_NORM = 1e3


def clean(
    activations: Mapping[lm.Tap, Float[Array, 'sequences positions _']],
    tokens: Int[Array, 'sequences positions'],
    inverse_scale: Mapping[lm.Tap, Array],
    *,
    user_prefix: tuple[int, ...] = (),
) -> tuple[
    dict[lm.Tap, Float[Array, 'sequences positions _']],
    Bool[Array, 'sequences positions'],
    Int32[Array, ''],
]:
  """Returns activations with dropped rows zeroed, the keep mask and a count.

  The count is that of text rows dropped for being non-finite or too large.
  Rows are zeroed with `where`, because a mask of 0 times NaN is NaN. With an
  `inverse_scale` of 0 no finite row is too large.
  """
  is_text = jnp.asarray(packing.keep_mask(tokens, user_prefix))
  keep = is_text
  for tap, x in activations.items():
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1))
    # NaN compares as False; so does infinity at any scale, because inf * 0 is
    # NaN.
    keep &= norm * inverse_scale[tap] <= MAX_NORM
  kept = {
      tap: jnp.where(keep[:, :, None], x, jnp.zeros((), x.dtype))
      for tap, x in activations.items()
  }
  return kept, keep, jnp.sum(is_text & ~keep, dtype=jnp.int32)
