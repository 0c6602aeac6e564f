"""Arrays of released files: shapes first, then the data, in float32."""

from collections.abc import Mapping
import pathlib

import numpy as np

from jumprelu import errors
from jumprelu.files import npz
from jumprelu.lm import weights

Header = tuple[tuple[int, ...], str]

# As safetensors and as NumPy name them.
_FLOATS = (
    'F64', 'F32', 'F16', 'BF16', 'float64', 'float32', 'float16',
)  # fmt: skip


def header(path: pathlib.Path) -> dict[str, Header]:
  """Returns shape and type of each array, without reading one."""
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file')
  if path.suffix == '.npz':
    return npz.header(path)
  return weights.header(path)


def read(
    path: pathlib.Path, headers: Mapping[str, Header]
) -> dict[str, np.ndarray]:
  """Reads arrays whose headers were seen; what is not finite is refused."""
  for name, (_, dtype) in headers.items():
    if dtype not in _FLOATS:
      raise errors.DataError(
          f'{path}: tensor {name} is of type {dtype}, wanted floats'
      )
  if path.suffix == '.npz':
    found = npz.read_npz(
        path,
        {name: shape for name, (shape, _) in headers.items()},
        dtype={name: dtype for name, (_, dtype) in headers.items()},
    )
  else:
    found = {name: weights.read_tensor(path, name) for name in headers}
  for name, value in found.items():
    found[name] = value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
      raise errors.DataError(
          f'{path}: tensor {name} has values that are not finite; fetch it'
          ' again'
      )
  return found
