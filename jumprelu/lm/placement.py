"""The shardings of a language model's parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.lm import config as config_lib
from jumprelu.lm import gemma


def param_layout(
    config: config_lib.LmConfig,
    *,
    num_layers: int,
    dtype: Any,
    mesh: jax.sharding.Mesh | None = None,
) -> gemma.Params:
  """Returns the first layers' parameters as `ShapeDtypeStruct` with shardings.

  Parameters outside of the layers are included. The weights are also sharded
  over `data` if they would otherwise use more of each device's memory than
  `sharding.MAX_WEIGHT_BYTES`. Without a mesh there are no shardings.
  """
  shapes, axes = gemma.param_shapes(config), gemma.param_axes(config)
  wanted = [
      key
      for key in shapes
      if not key.startswith('layer_') or int(key.split('_')[1]) < num_layers
  ]
  kept = {key: shapes[key] for key in wanted}
  size = sum(x.size for x in jax.tree.leaves(kept)) * jnp.dtype(dtype).itemsize
  rules = sharding.lm_rules(mesh, size)

  def place(x, names):
    layout = None
    if mesh is not None:
      layout = sharding.named(mesh, *names, rules=rules, shape=x.shape)
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=layout)

  return jax.tree.map(place, kept, {key: axes[key] for key in wanted})
