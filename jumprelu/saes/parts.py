"""The parts of all variants: base config, records of a loss, row helpers."""

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

  # Name in error messages, if the module is not named like its variant.
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
    """Returns the members' sparsity coefficients and target L0s (0: none).

    `coefficients` and `targets` are those of the whole suite; one of the two
    is empty. A variant that cannot aim at an L0 has no members at a target.
    """
    return [] if targets else [(value, 0.0) for value in coefficients]


class LossParts(NamedTuple):
  """The loss of one batch and one SAE, and its parts.

  loss = reconstruction + penalty + auxiliary.
  """

  loss: Float[Array, '']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  # The sparsity term of the loss, coefficient included.
  penalty: Float[Array, '']
  # The extra terms of the variant's paper.
  auxiliary: Float[Array, '']
  # Mean number of active latents over kept rows.
  l0: Float[Array, '']
  # Number of kept rows on which each latent fired.
  fired: Int32[Array, ' latents']
  # New values of the parameters that are updated without gradients.
  carried: Params


class Rows(NamedTuple):
  """The inputs of a variant's auxiliary loss besides its latents."""

  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  # reconstruction - targets.
  errors: Float[Array, 'batch target_model']
  keep: Bool[Array, ' batch']
  # Kept rows since each latent fired.
  silent: Int32[Array, ' latents']


def kept_mean(
    values: Float[Array, 'batch *rest'], keep: Bool[Array, ' batch']
) -> Float[Array, '*rest']:
  """Returns the average over the rows with `keep`."""
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
