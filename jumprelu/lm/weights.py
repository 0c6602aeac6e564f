"""Reading parameters from files into arrays sharded over the mesh.

In every format, only tensors of the needed layers are read. They are copied
from the files to the devices one at a time, so that the host's memory holds one
parameter and the copies that its conversion makes, but never all weights.
"""

from collections.abc import Mapping
import json
import pathlib
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.files import lfs
from jumprelu.lm import config as config_lib
from jumprelu.lm import gemma, placement

Shape = tuple[int, ...]


@runtime_checkable
class Reader(Protocol):
  """The tensors of a model, under the keys of our tree (`flatten`)."""

  def check(self, shapes: Mapping[str, Shape]) -> None:
    """Checks that the files have tensors of these shapes, without reading them.

    Raises:
      DataError: if a tensor is missing or has another shape. The message names
        the file, the tensor, and the actual and wanted shapes.
    """
    ...

  def tensor(self, key: str) -> np.ndarray:
    """Returns one tensor; `check` must have been called with its key."""
    ...


def flatten(tree: gemma.Params) -> dict[str, Any]:
  """Returns a nested dict as one dict with keys joined by '/'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_leaf)
  return {'/'.join(entry.key for entry in path): leaf for path, leaf in leaves}


def _is_leaf(x):
  return not isinstance(x, dict)


def unflatten(flat: dict[str, Any]) -> gemma.Params:
  """Returns the nested dict of a flat one; the inverse of `flatten`."""
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
  """Writes parameters to `path` in bfloat16, and the metadata as JSON."""
  from safetensors import numpy as safetensors

  arrays = {
      key: np.asarray(jnp.asarray(leaf, jnp.bfloat16))
      for key, leaf in flatten(params).items()
  }
  safetensors.save_file(
      arrays, path, metadata={k: json.dumps(v) for k, v in metadata.items()}
  )


class PackageFile:
  """A file written by `write`: the format of the embedded model."""

  def __init__(self, path: pathlib.Path):
    if not path.is_file():
      raise errors.MissingInputError(f'{path}: no such file of model weights')
    self._path = path
    self._shapes = {k: shape for k, (shape, _) in header(path).items()}

  def check(self, shapes: Mapping[str, Shape]) -> None:
    """See `Reader`."""
    for key, shape in shapes.items():
      check_shape(self._path, key, actual=self._shapes.get(key), wanted=shape)

  def tensor(self, key: str) -> np.ndarray:
    """See `Reader`."""
    return read_tensor(self._path, key)


def header(path: pathlib.Path) -> dict[str, tuple[Shape, str]]:
  """Returns the shape and dtype of each tensor in a safetensors file."""
  import safetensors

  if path.is_file():
    lfs.refuse_pointer(path)
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      slices = {name: file.get_slice(name) for name in file.keys()}
      return {
          name: (tuple(part.get_shape()), part.get_dtype())
          for name, part in slices.items()
      }
  except (safetensors.SafetensorError, OSError) as error:
    raise errors.DataError(
        f'{path}: not readable: {error}; fetch it again'
    ) from error


def read_tensor(
    path: pathlib.Path, name: str, rows: int | None = None
) -> np.ndarray:
  """Returns one tensor of a safetensors file, or its first `rows` rows."""
  import safetensors

  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      if rows is not None:
        return file.get_slice(name)[:rows]
      return file.get_tensor(name)
  except (safetensors.SafetensorError, OSError) as error:
    raise errors.DataError(
        f'{path}: tensor {name}: not readable: {error}; fetch it again'
    ) from error


def check_shape(
    path: pathlib.Path, name: str, *, actual: Shape | None, wanted: Shape
) -> None:
  """Raises a DataError unless the tensor exists and has the wanted shape."""
  if actual is None:
    raise errors.DataError(
        f'{path}: tensor {name} is missing; wanted: shape {wanted}'
    )
  if actual != wanted:
    raise errors.DataError(
        f"{path}: tensor {name} has shape {actual}, the model's config wants"
        f' {wanted}'
    )


def _place(array, leaf):
  """Returns `array`, which is whole in every process, sharded like `leaf`."""
  if leaf.sharding is None:
    # `jnp.asarray` would need memory for a third copy.
    return jax.device_put(array.astype(leaf.dtype, copy=False))
  # Each shard is cast separately, so that the host never has the whole array in
  # two dtypes.
  return jax.make_array_from_callback(
      array.shape, leaf.sharding, lambda index: array[index].astype(leaf.dtype)
  )


def load(
    config: config_lib.LmConfig,
    reader: Reader,
    *,
    num_layers: int | None = None,
    dtype: Any = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> gemma.Params:
  """Returns the parameters of the first `num_layers` layers on `mesh`.

  Raises:
    DataError: if a tensor is missing, damaged or of another shape.
  """
  layers = config.layers if num_layers is None else num_layers
  wanted = flatten(
      placement.param_layout(config, num_layers=layers, dtype=dtype, mesh=mesh)
  )
  reader.check({key: leaf.shape for key, leaf in wanted.items()})
  return unflatten(
      {key: _place(reader.tensor(key), leaf) for key, leaf in wanted.items()}
  )


def read(
    config: config_lib.LmConfig, path: pathlib.Path, **kwargs: Any
) -> gemma.Params:
  """Returns the parameters that `write` wrote; other arguments as in `load`.

  Raises:
    MissingInputError: if there is no such file.
    DataError: if a tensor is missing, damaged or of another shape.
  """
  return load(config, PackageFile(path), **kwargs)
