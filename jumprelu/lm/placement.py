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
    mesh: Any = None,
) -> gemma.Params:
  """Returns the abstract parameters of the first layers, with their shardings.

  If the weights exceed the memory that a device should use for them, they are
  sharded over `data` as well (`sharding.lm_rules`).
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
