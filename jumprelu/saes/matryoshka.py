"""Matryoshka SAEs: the first latents alone must reconstruct as well.

  loss = sum over prefixes m of ||x - (latents[:m] W_dec[:m] + b_dec)||^2
         + what else the variant's loss has

(Bussmann et al., arXiv 2503.17547, section 3.) The last prefix is the whole
width, so that its term is the reconstruction of any SAE and the others are
added to it. `nest` makes of any variant's classes those that add them: a line
in the table makes one. Latents, thresholds and penalties are the variant's
own, as are the files that are released: a Matryoshka SAE is *used* like the
SAE that it nests.

Where implementations differ, and what is done here:
* The paper sums over prefixes. dictionary_learning weighs each by 1 / their
  number and then averages them again; a sparsity coefficient there is another
  one than here.
* Sizes: the paper draws or fixes nested sizes that double; dictionary_learning
  wants them from the user. Here they are shares of the width, 1/32, 3/32, 7/32,
  15/32 and the whole: groups of 1/32, 1/16, 1/8, 1/4 and the rest.
* Which activation: the paper nests BatchTopK, whose selection is one for all
  prefixes; Gemma Scope 2 nests JumpReLU (its prefixes are not published). TopK
  selects once as well.
* The auxiliary term of dead latents refers to the whole reconstruction, and so
  does the reconstruction of a Gated SAE's gates.
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
  """What nesting adds to a variant's hyper-parameters."""

  prefix_shares: tuple[float, ...] = fields.field(
      (1 / 32, 3 / 32, 7 / 32, 15 / 32),
      'Shares of the width that must reconstruct too, rising.',
  )

  def __post_init__(self):
    super().__post_init__()
    bounds = (0.0, *self.prefix_shares, 1.0)
    rising = all(a < b for a, b in zip(bounds, bounds[1:], strict=False))
    fields.check(self, 'prefix_shares', rising, 'rising between 0 and 1')

  def prefixes(self, width: int) -> list[int]:
    """Give the numbers of latents, the whole width left out."""
    sizes = {max(1, round(share * width)) for share in self.prefix_shares}
    return sorted(sizes - {width})


class Nested(base.Sae):
  """Adds the prefixes' reconstructions to a variant's loss."""

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Add the squared errors of the prefixes, each group decoded once."""
    total = super().auxiliary_loss(params, pre_acts, latents, rows=rows)
    left, start = params['b_dec'][None, :] - rows.targets, 0
    left = self.add_skip(params, left, rows.inputs)
    for end in self.config.prefixes(self.width):
      left = left + products.matmul(
          latents[:, start:end], params['W_dec'][start:end]
      )
      total = total + base.kept_mean(jnp.square(left).sum(axis=-1), rows.keep)
      start = end
    return total


def nest(
    sae: type[base.Sae], config: type[base.Config]
) -> tuple[type[base.Sae], type[Prefixes]]:
  """Makes the classes of a variant's Matryoshka form: its SAE, its config."""

  @dataclasses.dataclass(frozen=True)
  class NestedConfig(Prefixes, config):
    name: ClassVar[str] = f'matryoshka_{sae.variant}'

  @dataclasses.dataclass(frozen=True)
  class NestedSae(Nested, sae):
    variant: ClassVar[str] = NestedConfig.name

    config: NestedConfig

  origin = sae.__name__
  for made, name in ((NestedConfig, f'{origin}Config'), (NestedSae, origin)):
    made.__name__ = made.__qualname__ = f'Matryoshka{name}'
    made.__doc__ = f'As {origin}, with prefixes that reconstruct as well.'
  return NestedSae, NestedConfig
