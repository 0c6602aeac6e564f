"""Dropped rows: special tokens, non-finite rows and rows of very large norm."""

from collections.abc import Mapping
import types

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
    limits: Mapping[lm.Tap, Array] = types.MappingProxyType({}),
    user_prefix: tuple[int, ...] = (),
) -> tuple[
    dict[lm.Tap, Float[Array, 'sequences positions _']],
    Bool[Array, 'sequences positions'],
    Int32[Array, ''],
]:
  """Returns activations with dropped rows zeroed, the keep mask and a count.

  A row is dropped at all taps if it is a special token, or if it is non-finite
  or too large at any tap. The count is the number of text rows that are
  dropped, apart from those above a limit.

  Args:
    activations: The activations by tap.
    tokens: The token ids.
    inverse_scale: 1 / scale of each tap. 0 accepts every finite norm.
    limits: The largest norms of kept rows at some taps (`stream.max_norm`).
    user_prefix: Token ids after a BOS that are dropped too.
  """
  is_text = jnp.asarray(packing.keep_mask(tokens, user_prefix))
  sound = usual = jnp.ones_like(is_text)
  for tap, x in activations.items():
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1))
    # Rows with NaN are dropped, because NaN compares as False. Rows of infinite
    # norm are dropped at an inverse scale of 0 too, because inf * 0 is NaN.
    sound &= norm * inverse_scale[tap] <= MAX_NORM
    if tap in limits:
      usual &= norm <= limits[tap]
  keep = is_text & sound & usual
  # `where`, because a product with the mask would keep NaN.
  kept = {
      tap: jnp.where(keep[:, :, None], x, jnp.zeros((), x.dtype))
      for tap, x in activations.items()
  }
  return kept, keep, jnp.sum(is_text & ~sound, dtype=jnp.int32)
