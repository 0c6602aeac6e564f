"""The mean thresholds of a suite's members, for the metrics of a segment."""

from collections.abc import Callable, Sequence

import jax

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
      # Only variants with thresholds have this method.
      mean = getattr(group.sae, 'mean_threshold', None)
      if mean is not None:
        every = jax.vmap(mean)(state.groups[group.name].params)
        # Without the members that only pad the group.
        out[group.name] = every[: len(group.members)]
    return out

  everywhere = None if mesh is None else sharding.replicated(mesh)
  return jax.jit(means, out_shardings=everywhere)
