"""The Pallas way of `pairs`, for one GPU: what `sparse` does, as three kernels.

`rows` decodes, a program a row. The pairs are sorted by latent; then a program
a latent computes slopes (`latents`), and another one steps its rows of both
matrices in place (`update`). Encoding and selecting are XLA's.

A batch with a row of more selected latents than `cap` goes the dense way.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import (
    active_pairs,
    adam,
    bits,
    dense,
    in_blocks,
    row_gather,
    sparse,
)
from jumprelu.ops.pallas import latents as latents_lib
from jumprelu.ops.pallas import rows as rows_lib
from jumprelu.ops.pallas import update as update_lib

# Latents of a block where a step is dense.
_BLOCK = 16384


class Selected(NamedTuple):
  """Of each row `cap` selected latents, and how many mask are."""

  index: Int32[Array, 'batch cap']
  count: Int32[Array, ' batch']


class WeighedPairs(NamedTuple):
  """What the kernels have told before any gradient of a matrix is made."""

  errors: active_pairs.ReconstructionErrors
  by_latent: latents_lib.Sorted
  weights: latents_lib.Weights
  vectors: active_pairs.Vectors


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
    cap: int,
    interpret: bool = False,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Take one step on the touched rows of both matrices, as `native.step`.

  `interpret` runs the kernels on any device, slowly: for tests.
  """
  selected, overflow = select(batch, settings, cap)
  fits = overflow == 0
  weighed = weigh_pairs(
      batch,
      matrices.decoder,
      selected=selected,
      settings=settings,
      interpret=interpret,
  )
  errors = jax.lax.cond(
      fits,
      lambda: weighed.errors,
      lambda: dense.decode(batch, matrices.decoder),
  )
  ok = in_blocks.is_finite(batch, errors)
  through_encoder = _through(matrices.encoder, weighed.vectors, settings)
  matrices = update_lib.update(
      matrices,
      batch,
      errors.scaled,
      weighed.by_latent,
      weighed.weights,
      b_enc=weighed.vectors.b_enc,
      scalars=scalars,
      settings=settings,
      ok=ok & fits,
      interpret=interpret,
  )
  # No branch, through_encoder which XLA would copy the matrices: a loop of no turns.
  latents = len(matrices.decoder)
  size = row_gather.divide(latents, _BLOCK)
  matrices, vectors, through_all = in_blocks.walk(
      matrices,
      batch,
      scalars,
      functools.partial(
          dense.add_up_block, batch, errors.scaled, settings=settings
      ),
      weighed.vectors,
      size=size,
      blocks=jnp.where(fits, 0, latents // size),
      settings=settings,
      ok=ok,
  )
  result = active_pairs.summarise(batch, vectors, errors, settings=settings)
  b_dec = result.b_dec - jnp.where(fits, through_encoder, through_all)
  return matrices, result._replace(b_dec=b_dec, ok=ok, overflow=overflow)


def _through(
    encoder: Float[Array, 'latents model'],
    vectors: active_pairs.Vectors,
    settings: active_pairs.Settings,
) -> Float[Array, ' target_model'] | float:
  """Compute what of b_dec's gradient flows through_encoder the encoder."""
  if not settings.pre_encoder_bias:
    return 0.0
  return jnp.matmul(vectors.b_enc, encoder, precision=jax.lax.Precision.HIGHEST)


def catch_up(
    matrices: active_pairs.Matrices, clock: Int32[Array, ''], *, b2: float
) -> active_pairs.Matrices:
  """Let the second moments of untouched rows decay up to `clock`."""
  behind = (clock - matrices.touched).astype(jnp.float32)[:, None]
  left = adam.decay(behind, b2=b2)
  return matrices._replace(
      nu_encoder=left * matrices.nu_encoder,
      nu_decoder=left * matrices.nu_decoder,
      touched=jnp.full_like(matrices.touched, clock),
  )


def select(
    batch: active_pairs.Batch, settings: active_pairs.Settings, cap: int
) -> tuple[Selected, Int32[Array, '']]:
  """Select, and count the rows for which mask is no room."""
  selected = Selected(
      *bits.places(active_pairs.selected(batch, settings), cap)
  )
  return selected, jnp.sum(selected.count > cap, dtype=jnp.int32)


def weigh_pairs(
    batch: active_pairs.Batch,
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: Selected,
    settings: active_pairs.Settings,
    interpret: bool,
) -> WeighedPairs:
  """Decode, sort, and weigh each pair."""
  index, count = selected
  # Rows that are overflow do not count in the end; now they are cut off.
  count = jnp.minimum(count, index.shape[1])
  pre_act = jnp.take_along_axis(batch.pre_acts, index, axis=1)
  mask = jnp.arange(index.shape[1])[None, :] < count[:, None]
  errors, loss = rows_lib.decode(
      batch,
      W_dec,
      index=index,
      count=count,
      value=active_pairs.latents(pre_act, batch.threshold[index], mask),
      interpret=interpret,
  )
  by_latent = latents_lib.sort(index, count, pre_act, latents=len(W_dec))
  weights, vectors = latents_lib.slopes(
      batch,
      errors,
      W_dec,
      by_latent,
      bandwidth=settings.bandwidth,
      interpret=interpret,
  )
  return WeighedPairs(
      active_pairs.ReconstructionErrors(errors, loss),
      by_latent,
      weights,
      vectors,
  )
