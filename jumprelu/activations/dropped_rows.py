"""Rows that are dropped: special tokens, non-finite values, absurd norms."""

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
  """Zeroes the rows that must not count; returns them, the mask, the damage.

  By `where`, before anything else reads them: a mask times NaN is NaN. An
  `inverse_scale` of 0 drops only what is not finite.
  """
  is_text = jnp.asarray(packing.keep_mask(tokens, user_prefix))
  good = is_text
  for tap, x in activations.items():
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1))
    # False for NaN and, as inf * 0 is NaN, for infinity at any scale.
    good &= norm * inverse_scale[tap] <= MAX_NORM
  kept = {
      tap: jnp.where(good[:, :, None], x, jnp.zeros((), x.dtype))
      for tap, x in activations.items()
  }
  return kept, good, jnp.sum(is_text & ~good, dtype=jnp.int32)
