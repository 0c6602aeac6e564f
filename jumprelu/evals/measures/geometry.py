"""Geometry of the decoder: cosines of each row with the nearest other row.

Two cosines are averaged over the latents that fire: the largest cosine of a
latent's decoder row with the row of another latent that fires, and, except for
transcoders, the cosine of its encoder column with its decoder row. SAEBench's
`max_decoder_cosine_sim` covers all latents. This measure leaves out dead
latents, because their rows stay near their random initialisation. No text is
read, because firing frequencies are known from the first pass.
"""

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Float, Int
from jumprelu.evals import jitted
from jumprelu.evals.measures import context as context_lib

# Memory limit per device for the cosines of a chunk, in bytes.
_CHUNK_BYTES = 1 << 28
_QUANTILES = np.arange(0, 101, 5)


def unit_rows(
    x: Float[np.ndarray, 'latents model'],
) -> Float[np.ndarray, 'latents model']:
  """Returns the rows scaled to norm 1; zero rows stay zero."""
  norms = np.linalg.norm(x, axis=1, keepdims=True)
  return x / np.where(norms > 0, norms, 1)


@functools.partial(jax.jit, static_argnames=('itself', 'chunk'))
def _nearest(queries, keys, *, itself, chunk):

  def of(rows):
    index, rows = rows
    cosines = jnp.einsum('im,jm->ij', rows, keys, precision='highest')
    if itself:
      same = index[:, None] == jnp.arange(len(keys))[None]
      cosines = jnp.where(same, -jnp.inf, cosines)
    return cosines.max(1), cosines.argmax(1)

  extra = -len(queries) % chunk
  rows = jnp.pad(queries, ((0, extra), (0, 0))).reshape(
      -1, chunk, keys.shape[1]
  )
  index = jnp.arange(len(queries) + extra).reshape(-1, chunk)
  best, where = lax.map(of, (index, rows))
  return best.ravel()[: len(queries)], where.ravel()[: len(queries)]


def nearest(
    queries: Float[Array, 'queries model'] | Float[np.ndarray, 'queries model'],
    keys: Float[Array, 'keys model'] | Float[np.ndarray, 'keys model'],
    *,
    itself: bool = False,
) -> tuple[Float[np.ndarray, ' queries'], Int[np.ndarray, ' queries']]:
  """Returns each query's largest cosine with a key, and that key's index.

  Queries and keys are rows of norm 1. With `itself`, the keys are the queries,
  and a row is not compared with itself.
  """
  chunk = max(1, min(len(queries), _CHUNK_BYTES // (4 * len(keys))))
  best, where = _nearest(
      jnp.asarray(queries), jnp.asarray(keys), itself=itself, chunk=chunk
  )
  return np.asarray(best), np.asarray(where)


def alive_rows(
    context: context_lib.Context, i: int
) -> Float[np.ndarray, 'latents model']:
  """Returns the unit decoder rows of the latents of member `i` that fire."""
  rows = _whole(context, i, 'W_dec')
  return unit_rows(rows[np.asarray(context.firing_frequency[i]) > 0])


def _whole(context, i, name):
  """Returns a whole parameter on the host of every process, in float32."""
  mesh = context.text.mesh
  gather = jax.jit(functools.partial(jitted.replicate, mesh=mesh))
  return np.asarray(gather(context.members[i].params[name]), np.float32)


def _of_member(context, i) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Returns the mean cosines of member `i`, and its rows of the table."""
  rows = alive_rows(context, i)
  if len(rows) < 2:
    return {'nearest_cosine': np.nan, 'encoder_decoder_cosine': np.nan}, []
  best, _ = nearest(rows, rows, itself=True)
  values = {'nearest_cosine': best.mean(), 'encoder_decoder_cosine': np.nan}
  member = context.members[i]
  if not member.reads.is_transcoder:
    alive = np.asarray(context.firing_frequency[i]) > 0
    columns = unit_rows(_whole(context, i, 'W_enc').T[alive])
    values['encoder_decoder_cosine'] = (columns * rows).sum(1).mean()
  quantiles = np.quantile(best, _QUANTILES / 100)
  return values, [
      {'path': context.names[i], 'percentile': int(q), 'nearest_cosine': cosine}
      for q, cosine in zip(_QUANTILES, quantiles, strict=True)
  ]


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Returns mean cosines, and a table of quantiles of the nearest cosines."""
  results = [_of_member(context, i) for i in range(len(context.members))]
  return context_lib.Measured(
      [columns for columns, _ in results],
      [row for _, rows in results for row in rows],
  )
