"""Matryoshka SAEs: prefixes of the latents must reconstruct as well.

  loss = sum over prefixes m of ||x - (latents[:m] W_dec[:m] + b_dec)||^2
         + the other terms of the variant's loss

(Bussmann et al., arXiv 2503.17547, section 3.) The last prefix is the whole
width; its term is the usual reconstruction error, and the terms of the other
prefixes are added to it. `nest` builds the Matryoshka classes of any variant,
so a row of the variants' table is enough to add one. Latents, thresholds, penalties and
released files are the same as in the nested variant. At inference a Matryoshka
SAE therefore behaves like the SAE that it nests.

Implementations differ, and this one chooses:
* Weights: the paper sums over prefixes. dictionary_learning weights each prefix
  by 1 / their number and then averages them again, so its sparsity coefficients
  are not comparable to those of this package.
* Sizes: the paper draws or fixes nested sizes that double; dictionary_learning
  leaves them to the user. Here they are shares of the width, 1/32, 3/32, 7/32,
  15/32 and the whole: groups of 1/32, 1/16, 1/8, 1/4 and the rest.
* Activation: the paper nests BatchTopK, whose selection is shared by all
  prefixes; Gemma Scope 2 nests JumpReLU (its prefixes are not published). TopK
  selects once as well.
* The auxiliary term of dead latents refers to the whole reconstruction, and so
  does the reconstruction from a Gated SAE's gates.
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
  """Hyper-parameters that nesting adds to those of a variant."""

  prefix_shares: tuple[float, ...] = fields.field(
      (1 / 32, 3 / 32, 7 / 32, 15 / 32),
      'Shares of the width that must reconstruct alone, increasing.',
  )

  def __post_init__(self):
    super().__post_init__()
    bounds = (0.0, *self.prefix_shares, 1.0)
    rising = all(a < b for a, b in zip(bounds, bounds[1:], strict=False))
    fields.check(self, 'prefix_shares', rising, 'rising between 0 and 1')

  def prefixes(self, width: int) -> list[int]:
    """Returns the prefixes' numbers of latents, without the whole width."""
    sizes = {max(1, round(share * width)) for share in self.prefix_shares}
    return sorted(sizes - {width})


class Nested(base.Sae):
  """A base class that adds the prefixes' errors to a variant's loss."""

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Returns the variant's own term plus the prefixes' squared errors."""
    total = super().auxiliary_loss(params, pre_acts, latents, rows=rows)
    errors, start = params['b_dec'][None, :] - rows.targets, 0
    errors = self.add_skip(params, errors, rows.inputs)
    for end in self.config.prefixes(self.width):
      # Each group is decoded once, because prefixes share their first groups.
      errors = errors + products.matmul(
          latents[:, start:end], params['W_dec'][start:end]
      )
      total = total + base.kept_mean(jnp.square(errors).sum(axis=-1), rows.keep)
      start = end
    return total


def nest(
    sae: type[base.Sae], config: type[base.Config]
) -> tuple[type[base.Sae], type[Prefixes]]:
  """Returns the SAE and config classes of a variant's Matryoshka form."""

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
    cls.__doc__ = f'{origin} with prefixes that reconstruct as well.'
  return NestedSae, NestedConfig
