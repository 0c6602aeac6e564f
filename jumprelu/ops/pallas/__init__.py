"""The Pallas way of `pairs`, for one GPU: what `sparse` does, as two kernels.

`rows` decodes, a program a row. The pairs are sorted by latent, and `latents`
adds up gradients, a program a latent. Encoding and selecting are XLA's.

A row with more selected latents than `cap` makes the step's gradients the dense
way's.
"""

import functools

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import bits, latent_major, pairs, sparse
from jumprelu.ops.pallas import latents as latents_lib
from jumprelu.ops.pallas import rows as rows_lib


def gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    settings: pairs.Settings,
    cap: int,
    interpret: bool = False,
) -> tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    pairs.Found,
]:
  """Compute all gradients of one batch, as `dense.gradients` does.

  `interpret` runs the kernels on any device, slowly: for tests.
  """
  index, count = bits.places(pairs.selected(batch, settings), cap)
  longer = jnp.sum(count > cap, dtype=jnp.int32)
  kernels = functools.partial(
      _gradients,
      index=index,
      count=count,
      settings=settings,
      interpret=interpret,
  )
  return sparse.or_dense(
      kernels, longer, batch, W_enc, W_dec, settings=settings
  )


def _gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    index: Int32[Array, 'batch cap'],
    count: Int32[Array, ' batch'],
    settings: pairs.Settings,
    interpret: bool,
) -> tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    pairs.Found,
]:
  """Compute the gradients where every row fits."""
  pre_act = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  active = pre_act > batch.threshold[index]
  errors, loss = rows_lib.decode(
      batch,
      W_dec,
      index=index,
      count=count,
      value=jnp.where(active, pre_act, 0.0),
      interpret=interpret,
  )
  sums = latents_lib.sums(
      batch,
      errors,
      W_dec,
      latents_lib.sort(index, count, pre_act, latents=len(W_dec)),
      bandwidth=settings.bandwidth,
      interpret=interpret,
  )
  return latent_major.finish(
      batch, W_enc, errors, loss, sums, settings=settings
  )
