"""The clean forward pass, and what it costs to put an SAE in its way.

One clean forward a batch serves all SAEs: it leaves the activations that they
read and the residual streams from which spliced passes start, so that those
run only the blocks above the splice. Replacements act at kept positions only:
BOS, EOS and padding stay clean for splices and for both ablations alike.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.data import packing

Site = lm.Site
Tap = lm.Tap


class Batch(NamedTuple):
  """What the clean forward leaves for all SAEs."""

  tokens: Int[Array, 'sequences positions']
  positions: Int[Array, 'sequences positions']
  segments: Int[Array, 'sequences positions']
  keep: Bool[Array, 'sequences positions']
  values: dict[Tap, Float[Array, 'sequences positions d_site']]

  def at(
      self, taps: Sequence[Tap]
  ) -> Float[Array, 'sequences positions sum_d_site']:
    """Returns the activations at `taps` side by side; one tap's as it is."""
    parts = [self.values[tap] for tap in taps]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

  @property
  def scored(self) -> Bool[Array, 'sequences positions']:
    """Marks kept source positions with a target in the same document."""
    return self.keep & lm.target_mask(self.segments)


def taps_for(reads: Iterable[lm.Reads]) -> frozenset[Tap]:
  """Returns the taps of the clean pass that splices of these SAEs need."""
  reads = list(reads)
  anchors = {anchor_of(tap) for each in reads for tap in each.targets}
  return frozenset({*lm.all_taps(reads), *anchors} - {None})


def anchor_of(target: Tap) -> Tap | None:
  """Returns the residual stream from which a splice at `target` is run.

  It is the last one that the splice leaves clean, or the one it replaces.
  None: the spliced pass starts from the tokens.
  """
  layer = target.layer - (target.site is not Site.RESID_POST)
  return Tap(layer, Site.RESID_POST) if layer >= 0 else None


def forward(
    model: lm.LanguageModel,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    *,
    taps: Iterable[Tap],
    user_prefix: tuple[int, ...] = (),
    mesh: Any = None,
) -> Batch:
  """Runs the clean model once, no higher than the last tap.

  Positions where a tapped activation is not finite are not kept: no
  statistic, loss or token count sees them.
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
  return Batch(tokens, positions, segments, keep, values)


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
    mesh: Any = None,
) -> Float[Array, 'sequences positions']:
  """Returns next-token losses with `value` in the place of `target`.

  The batch must hold the value of `anchor_of(target)`.
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
    mesh: Any = None,
) -> Float[Array, 'sequences positions model']:
  """Returns what is unembedded with `value` in the place of `target`."""
  return lm.hidden(
      model, params, batch.tokens, **_from_anchor(batch, target, value, mesh)
  )


def _from_anchor(batch, target, value, mesh):
  """Returns the arguments of a pass that runs from the anchor only."""
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
