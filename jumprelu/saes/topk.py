"""TopK SAEs: the k largest pre-activations of each row are its latents.

  latents = z where z is positive and among its row's k largest, else 0
  loss = ||x - decode(latents)||^2
         + aux_coefficient * ||e - aux_latents W_dec||^2

where z are the pre-activations, e = x - decode(latents) without gradients, and
aux_latents are the `aux_k` largest positive z of the row among *dead* latents
(AuxK: Gao et al., arXiv 2406.04093, sections 2.3 and A.2). A latent is dead if
it has not fired for `dead_after` kept rows; the count of rows is part of the
training state. There is no penalty. The k of a member is its target L0, and the
members of a suite may differ in k.

Implementations differ. This package chooses as follows:
* Normalisation: OpenAI's code divides the first term by the variance of the
  inputs and the auxiliary term by the variance of e. This package follows the
  paper's formula, which does neither. (The difference hardly matters: only the
  auxiliary term trains a dead latent's row and column, and Adam's steps do not
  depend on the scale of the gradient.)
* Negative values among the k largest: OpenAI's code sets them to 0, and the
  paper's formula keeps them. Here they are 0.
* Fewer dead latents than `aux_k`: dictionary_learning then multiplies the
  auxiliary term by (number of dead latents) / aux_k. This package, like others,
  does not.
* `aux_k`: OpenAI's code has 256, its paper 512, others half of the model's
  width. Here it is 512.
* `b_dec`: OpenAI's code starts it at the geometric median of activations. Here
  it starts at 0, as in all variants.
* Norms: SAELens can select by z times the norm of the decoder's row. Here rows
  have unit norm, so this makes no difference.
* Exactness: the paper on JumpReLU SAEs (arXiv 2407.14435) trains this baseline
  with an approximate selection. Here it is exact. Values that equal the k-th
  largest are all kept, so ties can raise L0 above k.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32
from jumprelu.files import fields
from jumprelu.ops import largest_k, products
from jumprelu.saes import base

# A function (values, k, whole=..., rows=...) that returns the mask of
# the k largest positive values (`largest_k.largest`).
Search = Callable[..., Bool[Array, 'batch latents']]


@dataclasses.dataclass(frozen=True)
class Config(base.Config):
  """Hyper-parameters of a TopK SAE."""

  k: tuple[float, ...] = fields.field(
      (32.0,),
      'Active latents per row, one member per value; target_l0 overrides them.',
  )
  aux_k: int = fields.field(
      512, 'Number of dead latents that model the error of a row; 0 for none.'
  )
  aux_coefficient: float = fields.field(
      1 / 32, 'Weight of the loss that trains dead latents to model the error.'
  )
  dead_after: int = fields.field(
      10_000_000, 'A latent is dead if it has not fired for this many rows.'
  )

  def __post_init__(self):
    valid = all(0 < k < math.inf for k in self.k) and len(self.k) > 0
    fields.check(self, 'k', valid, 'one or more numbers above 0')
    fields.check(self, 'aux_k', self.aux_k >= 0, 'at least 0')
    finite = 0 <= self.aux_coefficient < math.inf
    fields.check(self, 'aux_coefficient', finite, 'finite and at least 0')
    fields.check_positive(self, 'dead_after')

  def sparsities(
      self, coefficients: Sequence[float], targets: Sequence[float]
  ) -> list[tuple[float, float]]:
    """Returns (0, k) of each member, because TopK has no coefficient."""
    del coefficients
    return [(0.0, float(k)) for k in targets or self.k]


@dataclasses.dataclass(frozen=True)
class TopK(base.Sae):
  """An SAE with a fixed number of active latents per row."""

  variant: ClassVar[str] = 'topk'
  untrained: ClassVar[tuple[str, ...]] = ('k',)

  config: Config

  def init_own_params(
      self, *, initial_threshold: base.Scalar, target_l0: base.Scalar
  ) -> base.Params:
    """Returns k, which is stored with the weights because encoding needs it."""
    del initial_threshold
    return {'k': jnp.asarray(target_l0, jnp.float32)}

  def activate(
      self, params: base.Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the k largest positive pre-activations of each row, else 0."""
    chosen = largest_k.largest(pre_acts, jax.lax.stop_gradient(params['k']))
    return jnp.where(chosen, pre_acts, 0.0)

  def chosen(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      keep: Bool[Array, ' batch'],
      search: Search = largest_k.largest,
  ) -> Bool[Array, 'batch latents']:
    """Returns the mask of the pairs that are active in training.

    Args:
      params: The parameters.
      pre_acts: The pre-activations.
      keep: Whether each row is kept.
      search: `largest_k.largest`, or a function with the same results.
    """
    del keep
    return search(pre_acts, jax.lax.stop_gradient(params['k']))

  def batch_latents(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      inputs: Float[Array, 'batch model'],
      keep: Bool[Array, ' batch'],
  ) -> Float[Array, 'batch latents']:
    """Returns the pre-activations of the pairs that are `chosen`, else 0."""
    del inputs
    chosen = self.chosen(params, pre_acts, keep=keep)
    return jnp.where(chosen, pre_acts, 0.0)

  def penalty(
      self,
      params: base.Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Returns zeros, because TopK has no penalty."""
    del params, latents
    return jnp.zeros(pre_acts.shape[:-1], jnp.float32)

  def auxiliary_loss(
      self,
      params: base.Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: base.Rows,
  ) -> Float[Array, '']:
    """Returns the weighted squared error that the dead latents leave."""
    del latents
    dead = self.dead(rows.silent)
    missing = -jax.lax.stop_gradient(rows.errors)

    def remaining_error():
      chosen = self.chosen_dead(pre_acts, dead)
      modelled = products.matmul(
          jnp.where(chosen, pre_acts, 0.0), params['W_dec']
      )
      squares = jnp.square(missing - modelled).sum(axis=-1)
      return self.config.aux_coefficient * base.kept_mean(squares, rows.keep)

    if not self.trains_dead:
      return jnp.float32(0)
    return jax.lax.cond(dead.any(), remaining_error, lambda: jnp.float32(0))

  @property
  def trains_dead(self) -> bool:
    """Whether the loss has a term for dead latents."""
    return bool(self.config.aux_k and self.config.aux_coefficient)

  def dead(self, silent: Int32[Array, ' latents']) -> Bool[Array, ' latents']:
    """Returns which latents are dead, from the rows since they last fired."""
    return silent >= self.config.dead_after

  def chosen_dead(
      self,
      pre_acts: Float[Array, 'batch latents'],
      dead: Bool[Array, ' latents'],
      *,
      search: Search = largest_k.largest,
  ) -> Bool[Array, 'batch latents']:
    """Returns the mask of the dead latents that model the error of each row.

    `search` is that of `chosen`.
    """
    # Live latents are set to 0, and only positive values are selected.
    candidates = jnp.where(dead[None, :], pre_acts, 0.0)
    return search(candidates, self.config.aux_k)

  def fold_own(
      self, params: base.Params, *, scale: Float[Array, ' latents']
  ) -> base.Params:
    """Returns k, because the selection does not depend on the scale.

    All latents have the same scale, up to rounding, because decoder rows have
    unit norm.
    """
    del scale
    return {'k': params['k']}
