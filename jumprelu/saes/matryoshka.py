"""Matryoshka SAEs: each of several prefixes of the latents must reconstruct.

  loss = sum over prefixes m of ||x - (latents[:m] W_dec[:m] + b_dec)||^2
         + the other terms of the base variant's loss

(Bussmann et al., arXiv 2503.17547, section 3.) The last prefix is the whole
width, so its term is the usual reconstruction error. The terms of the shorter
prefixes are added as part of the auxiliary loss. `nest` makes the Matryoshka
classes of any base variant; a row in `saes.VARIANTS` then adds the variant.
Matryoshka training changes only the loss: latents, thresholds, penalties and
released files are those of the base variant.

Implementations differ. This package chooses as follows:
* Weights: here each prefix has a weight of 1, as in the paper's sum.
  dictionary_learning weights each prefix by 1 / (number of prefixes) and then
  averages over prefixes, so its sparsity coefficients are not comparable.
* Sizes: here prefixes are shares of the width, by default 1/32, 3/32, 7/32,
  15/32 and 1. The latents that each of them adds are 1/32, 1/16, 1/8, 1/4 and
  17/32 of the width. The paper draws or fixes sizes that double, and
  dictionary_learning leaves them to the user.
* Activation: here latents are computed once, as in the base variant, and all
  prefixes share them; a TopK or BatchTopK SAE does not select again for each
  prefix. The paper's base variant is BatchTopK, which also selects once. Gemma
  Scope 2's is JumpReLU; its prefixes are not published.
* Other terms: the term for dead latents (AuxK) and the reconstruction from the
  gates of a Gated SAE use all latents, not prefixes.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jumprelu.array_typing import Array, Float
from jumprelu.files import fields
from jumprelu.ops import products
from jumprelu.saes import base


@dataclasses.dataclass(frozen=True)
class Prefixes(base.Config):
  """Hyper-parameters that a Matryoshka SAE adds to its base variant's."""

  prefix_shares: tuple[float, ...] = fields.field(
      (1 / 32, 3 / 32, 7 / 32, 15 / 32),
      'Shares of the width that must reconstruct alone, in increasing order.',
  )

  def __post_init__(self):
    super().__post_init__()
    bounds = (0.0, *self.prefix_shares, 1.0)
    rising = all(a < b for a, b in zip(bounds, bounds[1:], strict=False))
    fields.check(self, 'prefix_shares', rising, 'rising between 0 and 1')

  def prefixes(self, width: int) -> list[int]:
    """Returns the numbers of latents of the prefixes below the whole width."""
    sizes = {max(1, round(share * width)) for share in self.prefix_shares}
    return sorted(sizes - {width})


class Nested(base.Sae):
  """A mixin that adds the prefixes' errors to the loss of a base variant."""

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Returns the base variant's term plus the prefixes' squared errors."""
    total = super().auxiliary_loss(params, pre_acts, latents, rows=rows)
    errors, start = params['b_dec'][None, :] - rows.targets, 0
    errors = self.add_skip(params, errors, rows.inputs)
    for end in self.config.prefixes(self.width):
      # Each prefix adds its new latents to the error of the previous prefix, so
      # that no latent is decoded twice.
      errors = errors + products.matmul(
          latents[:, start:end], params['W_dec'][start:end]
      )
      total = total + base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)
      start = end
    return total


def nest(
    sae: type[base.Sae], config: type[base.Config]
) -> tuple[type[base.Sae], type[Prefixes]]:
  """Returns the SAE and config classes of a base variant's Matryoshka form."""

  @dataclasses.dataclass(frozen=True)
  class NestedConfig(Prefixes, config):
    name: ClassVar[str] = f'matryoshka_{sae.variant}'

  @dataclasses.dataclass(frozen=True)
  class NestedSae(Nested, sae):
    variant: ClassVar[str] = NestedConfig.name

    config: NestedConfig

  origin = sae.__name__
  for cls, name in ((NestedConfig, f'{origin}Config'), (NestedSae, origin)):
    cls.__name__ = cls.__qualname__ = f'Matryoshka{name}'
    cls.__doc__ = f'{origin} with prefixes that reconstruct alone.'.replace(
        'Relu', 'ReLU'
    )
  return NestedSae, NestedConfig
