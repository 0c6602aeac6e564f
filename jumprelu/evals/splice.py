"""The clean forward pass, and passes with an SAE's output spliced in.

One clean forward pass per batch serves all SAEs. It records the activations
that the SAEs read and the residual streams from which spliced passes start, so
that spliced passes run only the blocks above the splice. Splices and ablations
replace activations at kept positions only; others, such as BOS, EOS and
padding, keep their clean activations.
"""

from collections.abc import Iterable, Mapping, Sequence
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.data import packing

Site = lm.Site
Tap = lm.Tap


class Batch(NamedTuple):
  """A batch of tokens with the values that the clean pass recorded."""

  tokens: Int[Array, 'sequences positions']
  positions: Int[Array, 'sequences positions']
  segments: Int[Array, 'sequences positions']
  keep: Bool[Array, 'sequences positions']
  values: dict[Tap, Float[Array, 'sequences positions d_site']]

  def at(
      self, taps: Sequence[Tap]
  ) -> Float[Array, 'sequences positions sum_d_site']:
    """Returns the activations at `taps`, concatenated along the last axis."""
    parts = [self.values[tap] for tap in taps]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

  @property
  def scored(self) -> Bool[Array, 'sequences positions']:
    """Returns the mask of kept positions followed by a token of the document.

    The language model's loss is measured at these positions.
    """
    return self.keep & lm.target_mask(self.segments)


def taps_for(reads: Iterable[lm.Reads]) -> frozenset[Tap]:
  """Returns the taps that the clean pass must record for these SAEs."""
  reads = list(reads)
  targets = [tap for sae_reads in reads for tap in sae_reads.targets]
  anchors = {anchor_of(tap) for tap in targets}
  return frozenset({*lm.all_taps(reads), *anchors} - {None})


def anchor_of(target: Tap) -> Tap | None:
  """Returns the residual stream from which a pass spliced at `target` starts.

  The anchor of a residual stream is itself. The anchor of another target is the
  residual stream after the previous layer, or None in layer 0, where the
  spliced pass starts from the tokens.
  """
  layer = target.layer - (target.site is not Site.RESID_POST)
  return Tap(layer, Site.RESID_POST) if layer >= 0 else None


def forward(
    model: lm.LanguageModel,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    *,
    taps: Iterable[Tap],
    limits: Mapping[Tap, float] = types.MappingProxyType({}),
    user_prefix: tuple[int, ...] = (),
    mesh: jax.sharding.Mesh | None = None,
) -> Batch:
  """Returns the batch with its clean activations at `taps`.

  No block above the last tap is run. Positions with a non-finite activation at
  any tap, or a norm above the tap's limit, are not kept, so no statistic, loss
  or token count includes them.
  """
  taps = tuple(sorted(set(taps)))
  positions = jnp.asarray(packing.positions(tokens))
  segments = jnp.asarray(packing.segments(tokens))
  values = lm.activations(
      model,
      params,
      tokens,
      positions=positions,
      segments=segments,
      taps=taps,
      mesh=mesh,
  )
  keep = jnp.asarray(packing.keep_mask(tokens, user_prefix))
  for tap in taps:
    keep &= jnp.isfinite(values[tap]).all(-1)
  keep &= within_limits(values, limits)
  return Batch(tokens, positions, segments, keep, values)


def within_limits(
    values: Mapping[Tap, Float[Array, '... d_site']],
    limits: Mapping[Tap, float],
) -> Bool[Array, '...'] | bool:
  """Returns the mask of rows whose norm exceeds no limit of a tap."""
  within: Any = True
  for tap, limit in limits.items():
    norm = jnp.linalg.norm(values[tap].astype(jnp.float32), axis=-1)
    within &= norm <= limit
  return within


def replace_kept(
    x: Float[Array, 'sequences positions d_site'],
    value: Float[Array, 'sequences positions d_site'],
    keep: Bool[Array, 'sequences positions'],
) -> Float[Array, 'sequences positions d_site']:
  """Returns `value` at kept positions and `x` elsewhere."""
  return jnp.where(keep[..., None], value.astype(x.dtype), x)


def losses(
    model: lm.LanguageModel,
    params: Any,
    batch: Batch,
    *,
    target: Tap,
    value: Float[Array, 'sequences positions d_site'],
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions']:
  """Returns next-token losses with `value` spliced in at `target`.

  `batch.values` must contain `anchor_of(target)`, unless that is None.
  """
  return lm.losses(
      model, params, batch.tokens, **_from_anchor(batch, target, value, mesh)
  )


def hidden(
    model: lm.LanguageModel,
    params: Any,
    batch: Batch,
    *,
    target: Tap,
    value: Float[Array, 'sequences positions d_site'],
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions model']:
  """Returns inputs of the unembedding with `value` spliced in at `target`."""
  return lm.hidden(
      model, params, batch.tokens, **_from_anchor(batch, target, value, mesh)
  )


def _from_anchor(batch, target, value, mesh):
  """Returns the arguments of a pass that starts at the anchor."""
  anchor = anchor_of(target)
  inputs = None if anchor is None else batch.values[anchor]
  first_layer, splice = target.layer, None
  if target.site is Site.RESID_POST:
    inputs = replace_kept(batch.values[target], value, batch.keep)
    first_layer += 1
  else:
    splice = {target: lambda x: replace_kept(x, value, batch.keep)}
  return {
      'positions': batch.positions,
      'segments': batch.segments,
      'inputs': inputs,
      'first_layer': first_layer,
      'splice': splice,
      'mesh': mesh,
  }
