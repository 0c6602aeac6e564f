"""The inputs of one step: a batch of a block, sharded for one group."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.activations import blocks
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import active_pairs
from jumprelu.training import suite


class TrainBatch(NamedTuple):
  """The inputs of one step, which are the same for all members of a group."""

  inputs: Float[Array, 'batch model']
  targets: Float[Array, 'batch target_model']
  # False for dropped rows, whose inputs and targets are 0.
  keep: Bool[Array, ' batch']
  # Mean squared distance of the kept targets from their mean.
  variance: Float[Array, '']
  # The number of the step, counted from 0.
  step: Int[Array, '']
  # The schedules' multipliers.
  learning_rate: Float[Array, '']
  sparsity: Float[Array, '']


def make(
    group: suite.Group,
    block: blocks.Block,
    index: Int[Array, ''],
    *,
    size: int,
    mesh: jax.sharding.Mesh | None,
    step: Int[Array, ''],
    learning_rate: Float[Array, ''],
    sparsity: Float[Array, ''],
) -> TrainBatch:
  """Returns batch `index` of a block, in the sharding of a group's batches.

  Args:
    group: The group that trains on the batch.
    block: The block of activations.
    index: The number of the batch in the block.
    size: The number of rows of a batch.
    mesh: The devices; None for one device.
    step: The number of the step, counted from 0.
    learning_rate: The schedule's multiplier of the learning rate.
    sparsity: The schedule's multiplier of the sparsity coefficient.
  """
  inputs, targets, keep = _lay_out(group, block, index, size=size, mesh=mesh)
  return TrainBatch(
      inputs,
      targets,
      keep,
      variance=pooled_variance(targets, keep),
      step=step,
      learning_rate=learning_rate,
      sparsity=sparsity,
  )


def _lay_out(
    group: suite.Group,
    block: blocks.Block,
    index: Int[Array, ''],
    *,
    size: int,
    mesh: jax.sharding.Mesh | None,
) -> tuple[Array, Array, Array]:
  """Returns a batch's inputs, targets and keep mask, sharded for the group."""
  stored, keep = blocks.rows(block, index, size)
  rules = suite.layout_of(group, mesh).rules

  def constrain(x):
    axes = ('batch',) + (None,) * (x.ndim - 1)
    return sharding.constrain(x, mesh, *axes, rules=rules)

  def scaled(tap):
    # Rows are constrained before and after they are converted to float32 and
    # scaled. The first constraint lets devices exchange them in the dtype of
    # the block, which may be bfloat16.
    rows = constrain(stored[tap])
    return constrain(blocks.scaled(rows, block.inverse_scale[tap]))

  values = {tap: scaled(tap) for tap in group.reads.taps}
  inputs = blocks.concatenated(values, group.reads.inputs)
  targets = inputs
  if group.reads.is_transcoder:
    targets = blocks.concatenated(values, group.reads.targets)
  return inputs, targets, constrain(keep)


def pooled_variance(
    targets: Float[Array, 'batch target_model'], keep: Bool[Array, ' batch']
) -> Float[Array, '']:
  """Returns the mean squared distance of the kept targets from their mean."""
  rows = active_pairs.row_count(keep)
  kept = jnp.where(keep[:, None], targets, 0.0)
  centred = kept - (kept.sum(axis=0) / rows)[None, :]
  squares = jnp.where(keep, jnp.square(centred).sum(axis=-1), 0.0)
  return squares.sum() / rows
