"""Parts that all variants share: base config, loss records, row helpers."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Int32, Key, Num
from jumprelu.ops import active_pairs

Params = dict[str, Array]
Scalar = int | float | np.number | Num[Array, '']


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyper-parameters that every variant has."""

  # The variant in error messages; if empty, the name of the config's module.
  name: ClassVar[str] = ''

  pre_encoder_bias: bool = dataclasses.field(
      default=True,
      metadata={
          'help': 'Subtract the decoder bias from the inputs; ignored by'
          ' transcoders.'
      },
  )

  def __post_init__(self):
    """Checks nothing; a variant's config checks its fields here."""

  def sparsities(
      self, coefficients: Sequence[float], targets: Sequence[float]
  ) -> list[tuple[float, float]]:
    """Returns (sparsity coefficient, target L0) of each member.

    A target of 0 means none. By default a variant cannot aim at an L0, and has
    no members if there are targets.

    Args:
      coefficients: The suite's sparsity coefficients for this variant.
      targets: The suite's target L0s, which replace the coefficients if there
        are any.
    """
    return [] if targets else [(value, 0.0) for value in coefficients]


class LossParts(NamedTuple):
  """The loss of an SAE on a batch, its parts, and statistics of the latents.

  loss = reconstruction + penalty + auxiliary.
  """

  loss: Float[Array, '']
  # Mean over kept rows of the error's squared norm.
  reconstruction: Float[Array, '']
  # The sparsity term of the loss, coefficient included.
  penalty: Float[Array, '']
  # The variant's third term (`auxiliary_loss`), 0 if it has none.
  auxiliary: Float[Array, '']
  # Mean over kept rows of the number of active latents.
  l0: Float[Array, '']
  # Number of kept rows on which each latent fired.
  fired: Int32[Array, ' latents']
  # New values of the parameters that are updated without gradients.
  carried: Params


class Rows(NamedTuple):
  """The inputs of a variant's auxiliary loss besides its latents."""

  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  # The reconstruction minus the targets.
  errors: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  # Number of kept rows since each latent last fired.
  silent: Int32[Array, ' latents']


def kept_mean(
    values: Float[Array, 'batch *rest'], keep: Bool[Array, ' batch']
) -> Float[Array, '*rest']:
  """Returns the average over the rows with `keep`, or 0 if there are none."""
  rows = active_pairs.row_count(keep)
  mask = keep.reshape(keep.shape + (1,) * (values.ndim - 1))
  return jnp.where(mask, values, 0.0).sum(axis=0) / rows


def unit_uniform(
    key: Key[Array, ''], rows: int, size: int
) -> Float[Array, 'rows size']:
  """Returns rows drawn uniformly from a cube, then scaled to unit norm."""
  draw = jax.random.uniform(key, (rows, size), jnp.float32, -1.0, 1.0)
  return draw / jnp.linalg.norm(draw, axis=-1, keepdims=True)


def for_rows(
    vector: Float[Array, ' size'], like: Float[Array, '*batch size']
) -> Float[Array, '*ones size']:
  """Returns the vector reshaped to the rank of `like`, for broadcasting."""
  return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
