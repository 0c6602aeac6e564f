"""Reading and writing a language model's parameters as safetensors."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.lm import config as config_lib
from jumprelu.lm import gemma, placement


def flatten(tree: gemma.Params) -> dict[str, Any]:
  """Returns a nested dict as one dict with keys joined by '/'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_leaf)
  return {'/'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def _is_leaf(x):
  return not isinstance(x, dict)


def unflatten(flat: dict[str, Any]) -> gemma.Params:
  """Returns the nested dict that `flatten` made one of."""
  tree = {}
  for key, leaf in flat.items():
    *parents, last = key.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def write(
    params: gemma.Params, path: pathlib.Path, metadata: dict[str, Any]
) -> None:
  """Writes parameters to `path` in bfloat16, with JSON-able metadata."""
  from safetensors import numpy as safetensors

  arrays = {
      key: np.asarray(jnp.asarray(leaf, jnp.bfloat16))
      for key, leaf in flatten(params).items()
  }
  safetensors.save_file(
      arrays, path, metadata={k: json.dumps(v) for k, v in metadata.items()}
  )


def _place(array, layout):
  """Lays an array over the mesh; every process holds it whole for a moment."""
  if layout is None:
    return jnp.asarray(array)
  host = np.asarray(array)
  return jax.make_array_from_callback(
      host.shape, layout, lambda index: host[index]
  )


def read(
    config: config_lib.LmConfig,
    path: pathlib.Path,
    *,
    num_layers: int | None = None,
    dtype: Any = jnp.float32,
    mesh: Any = None,
) -> gemma.Params:
  """Reads the parameters of the first `num_layers` layers, laid over `mesh`.

  Raises:
    MissingInputError: if there is no such file.
    DataError: if a tensor is missing or has another shape; it is named.
  """
  import safetensors

  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file of model weights')
  layers = config.layers if num_layers is None else num_layers
  shapes = flatten(
      placement.param_layout(config, num_layers=layers, dtype=dtype, mesh=mesh)
  )
  params = {}
  try:
    with safetensors.safe_open(path, framework='flax') as file:
      present = set(file.keys())
      for key, leaf in shapes.items():
        if key not in present:
          raise errors.DataError(f'{path}: tensor {key} is missing')
        array = file.get_tensor(key)
        if array.shape != leaf.shape:
          raise errors.DataError(
              f'{path}: tensor {key} has shape {array.shape}, the config of'
              f' {config.name} wants {leaf.shape}'
          )
        params[key] = _place(array.astype(dtype), leaf.sharding)
  except safetensors.SafetensorError as error:
    raise errors.DataError(f'{path}: not readable: {error}') from error
  return unflatten(params)
