"""The Pallas way of `pairs`, for one GPU: what `sparse` does, as three kernels.

`rows` decodes, a program a row. The pairs are sorted by latent; then a program a
latent computes slopes (`latents`), and another one steps its rows of both
matrices in place (`update`). Encoding and selecting are XLA's.

A batch with a row of more selected latents than `cap` goes the dense way.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Float, Int32
from jumprelu.ops import bits, dense, latent_major, pairs, row_update, sparse
from jumprelu.ops import rows as row_ops
from jumprelu.ops.pallas import latents as latents_lib
from jumprelu.ops.pallas import rows as rows_lib
from jumprelu.ops.pallas import update as update_lib

# Latents that XLA updates together after dense gradients.
_BLOCK = 16384


class _Selected(NamedTuple):
  """Of each row `cap` selected latents, and how many there are."""

  index: Int32[Array, 'batch cap']
  count: Int32[Array, ' batch']


class _Weighed(NamedTuple):
  """What the kernels have told before any gradient of a matrix is made."""

  errors: Float[Array, 'batch target_model']
  by_latent: latents_lib.Sorted
  weights: latents_lib.Weights
  over: pairs.Sums


def step(
    matrices: pairs.Matrices,
    batch: pairs.Batch,
    rates: pairs.Rates,
    *,
    settings: pairs.Settings,
    cap: int,
    interpret: bool = False,
) -> tuple[pairs.Matrices, pairs.Found]:
  """Take one step on the touched rows of both matrices, as `native.step`.

  `interpret` runs the kernels on any device, slowly: for tests.
  """
  selected, longer = _select(batch, settings, cap)
  fits = longer == 0
  weighed = _weigh(
      batch,
      matrices.decoder,
      selected=selected,
      settings=settings,
      interpret=interpret,
  )
  # Matrices must not go through a branch: XLA would copy them.
  sums, place, over = jax.lax.cond(
      fits,
      lambda: _no_sums(matrices, weighed.over),
      lambda: dense.by_latent(batch, matrices.decoder, settings),
  )
  found = _tell(batch, matrices.encoder, over, settings)
  matrices = update_lib.update(
      matrices,
      batch,
      weighed.errors,
      weighed.by_latent,
      weighed.weights,
      b_enc=found.b_enc,
      rates=rates,
      settings=settings,
      ok=found.ok & fits,
      interpret=interpret,
  )
  matrices, _ = row_update.update(
      matrices,
      sums,
      place,
      batch,
      rates,
      settings=settings,
      ok=found.ok & ~fits,
      block=_BLOCK,
  )
  return matrices, found._replace(overflow=longer)


def _no_sums(
    matrices: pairs.Matrices, over: pairs.Sums
) -> tuple[latent_major.Sums, Int32[Array, ' latents'], pairs.Sums]:
  """Give what nobody reads where `dense.by_latent` gives sums."""
  blank = [jax.lax.empty(x.shape, x.dtype) for x in matrices[:2]]
  blank = [latent_major.padded(x) for x in blank]
  sums = latent_major.Sums(
      *blank, over.b_enc, over.near_slopes, over.fired, over.near
  )
  return sums, jnp.arange(len(matrices.decoder), dtype=jnp.int32), over


def _tell(
    batch: pairs.Batch,
    encoder: Float[Array, 'latents model'],
    over: pairs.Sums,
    settings: pairs.Settings,
) -> pairs.Found:
  """Tell all but the matrices' gradients, and whether they are finite."""
  found = pairs.tell(batch, over, settings=settings)
  if settings.pre_encoder_bias:
    through = jnp.matmul(
        found.b_enc, encoder, precision=jax.lax.Precision.HIGHEST
    )
    found = found._replace(b_dec=found.b_dec - through)
  ok = found.ok & pairs.all_finite(batch.inputs, found.b_dec)
  return found._replace(ok=ok)


def catch_up(
    matrices: pairs.Matrices, clock: Int32[Array, ''], *, b2: float
) -> pairs.Matrices:
  """Let the second moments of untouched rows decay up to `clock`."""
  behind = (clock - matrices.touched).astype(jnp.float32)[:, None]
  left = row_ops.decay(behind, b2=b2)
  return matrices._replace(
      nu_encoder=left * matrices.nu_encoder,
      nu_decoder=left * matrices.nu_decoder,
      touched=jnp.full_like(matrices.touched, clock),
  )


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
  """Compute all gradients of one batch, as `dense.gradients` does."""
  selected, longer = _select(batch, settings, cap)
  kernels = functools.partial(
      _gradients, selected=selected, settings=settings, interpret=interpret
  )
  return sparse.or_dense(
      kernels, longer, batch, W_enc, W_dec, settings=settings
  )


def _select(
    batch: pairs.Batch, settings: pairs.Settings, cap: int
) -> tuple[_Selected, Int32[Array, '']]:
  """Select, and count the rows for which there is no room."""
  selected = _Selected(*bits.places(pairs.selected(batch, settings), cap))
  return selected, jnp.sum(selected.count > cap, dtype=jnp.int32)


def _weigh(
    batch: pairs.Batch,
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: _Selected,
    settings: pairs.Settings,
    interpret: bool,
) -> _Weighed:
  """Decode, sort, and weigh each pair."""
  index, count = selected
  # Rows that are longer do not count in the end; now they are cut off.
  count = jnp.minimum(count, index.shape[1])
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
  by_latent = latents_lib.sort(index, count, pre_act, latents=len(W_dec))
  weights, vectors = latents_lib.slopes(
      batch,
      errors,
      W_dec,
      by_latent,
      bandwidth=settings.bandwidth,
      interpret=interpret,
  )
  over = pairs.Sums(b_dec=errors.sum(axis=0), loss=loss, **vectors._asdict())
  return _Weighed(errors, by_latent, weights, over)


def _gradients(
    batch: pairs.Batch,
    W_enc: Float[Array, 'model latents'],
    W_dec: Float[Array, 'latents target_model'],
    *,
    selected: _Selected,
    settings: pairs.Settings,
    interpret: bool,
) -> tuple[
    Float[Array, 'model latents'],
    Float[Array, 'latents target_model'],
    pairs.Found,
]:
  """Compute the gradients where every row fits."""
  weighed = _weigh(
      batch, W_dec, selected=selected, settings=settings, interpret=interpret
  )
  to_encoder, to_decoder = latents_lib.sums(
      batch,
      weighed.errors,
      weighed.by_latent,
      weighed.weights,
      interpret=interpret,
  )
  return pairs.finish(
      batch, W_enc, to_encoder.T, to_decoder, weighed.over, settings=settings
  )
