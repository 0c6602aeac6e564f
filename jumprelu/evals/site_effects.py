"""Effects of changes at several sites on a difference of two logits.

The metric is the logit of an answer minus that of a foil, or minus the mean of
all logits, after one token. A pass adds a change to the activations at each
tap; all changes are arguments, so that one program serves gradients, paths of
integrated gradients and patching. The activations are linear in the nodes of an
SAE: x = sum_j f_j W_dec_j + affine + error. Changes of a latent keep the error
as a constant.

In a circuit only some nodes are kept. Each SAE encodes the activations of the
circuit itself, and the latents and errors outside of the circuit are zero
(Marks et al., arXiv 2403.19647, section 3.3).
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.data import packing
from jumprelu.evals import edits
from jumprelu.lm import gemma

Changes = Mapping[lm.Tap, Float[Array, 'sequences positions d_site']]


class Metric(NamedTuple):
  """The metric: the position, and the ids of the answer and the foil.

  A foil below 0 is the mean of all logits.
  """

  at: Int[Array, '']
  answer: Int[Array, '']
  foil: Int[Array, '']


class Kept(NamedTuple):
  """The nodes of an SAE that a circuit keeps."""

  latents: Bool[Array | np.ndarray, 'positions latents']
  error: Bool[Array | np.ndarray, ' positions']


@functools.partial(jax.jit, static_argnums=0)
def values(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, '1 positions'],
    metric: Metric,
    changes: Changes,
) -> Float[Array, ' sequences']:
  """Returns the metric with each of several changes of one text."""
  return _values(config, params, tokens, metric, changes)


@functools.partial(jax.jit, static_argnums=0)
def gradients(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, '1 positions'],
    metric: Metric,
    changes: Changes,
) -> tuple[Float[Array, ' sequences'], Changes]:
  """Returns the metric and its gradient at all taps, for each change."""

  def total(changes):
    metrics = _values(config, params, tokens, metric, changes)
    return metrics.sum(), metrics

  gradient, metrics = jax.grad(total, has_aux=True)(dict(changes))
  return metrics, gradient


@functools.partial(jax.jit, static_argnums=0, static_argnames='targets')
def circuit(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, '1 positions'],
    metric: Metric,
    sae_params: Sequence[Any],
    kept: Sequence[Kept],
    *,
    targets: tuple[edits.Target, ...],
) -> Float[Array, '']:
  """Returns the metric of a circuit, whose targets have different taps."""
  keep = packing.keep_mask(tokens)[..., None]
  seen: dict[lm.Tap, Array] = {}

  def record(tap):
    def pass_on(x):
      seen[tap] = x
      return x

    return pass_on

  def replace(target, arrays, nodes):
    sae, reads = target.sae, target.reads

    def at_tap(x):
      source = seen[reads.input] if reads.is_transcoder else x
      inputs = jnp.where(keep, source, 0).astype(jnp.float32)
      latents = sae.encode(arrays, inputs)
      error = x - sae.decode(arrays, latents, inputs)
      latents = jnp.where(nodes.latents[None], latents, 0)
      error = jnp.where(nodes.error[None, :, None], error, 0)
      return jnp.where(keep, sae.decode(arrays, latents, inputs) + error, x)

    return at_tap

  splice = {
      target.reads.input: record(target.reads.input)
      for target in targets
      if target.reads and target.reads.is_transcoder
  }
  for target, arrays, nodes in zip(targets, sae_params, kept, strict=True):
    splice[target.tap] = replace(target, arrays, nodes)
  return _metric(config, params, tokens, metric, splice)[0]


def _values(config, params, tokens, metric, changes):
  count = next(iter(changes.values())).shape[0]
  tokens = jnp.broadcast_to(tokens, (count, tokens.shape[1]))
  splice = {
      tap: functools.partial(edits.add, change=change)
      for tap, change in changes.items()
  }
  return _metric(config, params, tokens, metric, splice)


def _metric(config, params, tokens, metric, splice):
  """Returns the metric of each sequence."""
  hidden, _ = gemma.run(
      config,
      params,
      tokens,
      positions=jnp.asarray(packing.positions(tokens)),
      segments=jnp.asarray(packing.segments(tokens)),
      final_norm=True,
      splice=splice,
  )
  logits = gemma.unembed(config, params, hidden[:, metric.at])
  other = jnp.where(
      metric.foil < 0, logits.mean(-1), logits[:, jnp.maximum(metric.foil, 0)]
  )
  return logits[:, metric.answer] - other
