"""The mean thresholds of a suite's members, for the metrics of a segment."""

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.array_typing import Array, Float
from jumprelu.training import suite

Means = dict[str, Float[Array, ' members']]


def make(
    groups: Sequence[suite.Group], *, mesh: jax.sharding.Mesh | None = None
) -> Callable[[suite.TrainState], Means]:
  """Returns a compiled function from a state to mean thresholds by group.

  The means are over latents, in units of the scaled activations of training.
  Groups whose variant has no thresholds are left out.

  Args:
    groups: The groups of the suite.
    mesh: The devices; None for one device.
  """

  def means(state: suite.TrainState) -> Means:
    out = {}
    for group in groups:
      # Folding makes thresholds linear; a scale of 1 changes nothing else.
      scale = jnp.ones(group.sae.width, jnp.float32)
      fold = functools.partial(group.sae.fold_own, scale=scale)
      folded = jax.vmap(fold)(state.groups[group.name].params)
      if 'threshold' in folded:
        # Without the members that only pad the group.
        means = folded['threshold'].mean(axis=-1)
        out[group.name] = means[: len(group.members)]
    return out

  everywhere = None if mesh is None else sharding.replicated(mesh)
  return jax.jit(means, out_shardings=everywhere)
