"""Adam on both matrices in place, a block of latents after another.

What a step reads and writes of a block stays in the cache from its gradient to
its unit norm; whole matrices would pass through memory for each of these.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.ops import latent_major, pairs, rows

# Latents of a block, at most: what a CPU's caches hold.
BLOCK = 256


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    sums: latent_major.Sums,
    place: Int32[Array, ' latents'],
    over: pairs.Sums,
    *,
    settings: pairs.Settings,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Go by the sums, if they are finite; `place` is as in `update`."""
  found = pairs.tell(batch, over, settings=settings)
  ok = found.ok & pairs.all_finite(batch.inputs)
  matrices, through = update(
      matrices, sums, place, batch, rates, settings=settings, ok=ok
  )
  return matrices, found._replace(b_dec=found.b_dec - through, ok=ok)


def update(
    matrices: pairs.Matrices,
    sums: latent_major.Sums,
    place: Int32[Array, ' latents'],
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    ok: Bool[Array, ''],
    block: int = BLOCK,
) -> tuple[pairs.Matrices, Float[Array, ' target_model']]:
  """Take a step on all rows, also of those that are behind; none without `ok`.

  `place` tells where in the matrices' sums each latent's row is, and `block`
  how many latents go together, at most.

  Returns:
    The matrices, and what of b_dec's gradient flows through the encoder.
  """
  size = math.gcd(len(matrices.decoder), block)

  def body(number, carry):
    now, through = carry
    part = functools.partial(
        jax.lax.dynamic_slice_in_dim,
        start_index=number * size,
        slice_size=size,
    )
    where, b_enc = part(place), part(sums.b_enc)
    old = jax.tree.map(part, now)
    to_encoder = latent_major.take(sums.encoder, where)
    if settings.pre_encoder_bias:
      # The encoder read inputs - b_dec: both gradients feel it.
      to_encoder -= b_enc[:, None] * batch.b_dec[None, :]
      through += b_enc @ old.encoder
    to_decoder = latent_major.take(sums.decoder, where)
    # It is always taken. But what goes into a branch and comes out of it are
    # arrays of their own: fused with the writing below, this would read what is
    # being written, and XLA would copy whole matrices.
    new = jax.lax.cond(
        ok,
        lambda: _block(old, to_encoder, to_decoder, rates, settings),
        lambda: old,
    )
    write = functools.partial(
        jax.lax.dynamic_update_slice_in_dim, start_index=number * size, axis=0
    )
    return jax.tree.map(write, now, new), through

  blocks = jnp.where(ok, len(matrices.decoder) // size, 0)
  through = jnp.zeros_like(batch.b_dec)
  return jax.lax.fori_loop(0, blocks, body, (matrices, through))


def _block(
    old: pairs.Matrices,
    to_encoder: Float[Array, 'rows model'],
    to_decoder: Float[Array, 'rows target_model'],
    rates: pairs.Rates,
    settings: pairs.Settings,
) -> pairs.Matrices:
  """Step a block's rows by their gradients."""
  adam = functools.partial(
      rows.adam,
      learning_rate=rates.learning_rate,
      correction=rates.correction,
      b2=settings.b2,
      eps=settings.eps,
  )
  behind = (rates.clock - old.touched).astype(jnp.float32)[:, None]
  left = rows.decay(behind, b2=settings.b2)
  to_decoder = rows.project(to_decoder, old.decoder)
  encoder, nu_encoder = adam(old.encoder, left * old.nu_encoder, to_encoder)
  decoder, nu_decoder = adam(old.decoder, left * old.nu_decoder, to_decoder)
  return pairs.Matrices(
      encoder=encoder,
      decoder=rows.unit(decoder),
      nu_encoder=nu_encoder,
      nu_decoder=nu_decoder,
      touched=jnp.full_like(old.touched, rates.clock + 1),
  )
