"""Reading of float32 arrays from .npz and .safetensors files."""

from collections.abc import Mapping
import pathlib

import numpy as np

from jumprelu import errors
from jumprelu.files import npz
from jumprelu.lm import weights

# Shape and type of an array.
Header = tuple[tuple[int, ...], str]

# Float types, as named in safetensors headers and by NumPy.
_FLOATS = (
    'F64', 'F32', 'F16', 'BF16', 'float64', 'float32', 'float16',
)  # fmt: skip


def header(path: pathlib.Path) -> dict[str, Header]:
  """Returns the shape and type of each array in a file, without its data.

  Raises:
    MissingInputError: the file does not exist.
    DataError: the file is damaged.
  """
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file')
  if path.suffix == '.npz':
    return npz.header(path)
  return weights.header(path)


def read(
    path: pathlib.Path, headers: Mapping[str, Header]
) -> dict[str, np.ndarray]:
  """Reads the arrays listed in `headers`, converted to float32.

  Raises:
    DataError: an array is not of a float type, or has non-finite values.
  """
  for name, (_, dtype) in headers.items():
    if dtype not in _FLOATS:
      raise errors.DataError(
          f'{path}: tensor {name} is of type {dtype}, wanted floats'
      )
  if path.suffix == '.npz':
    arrays = npz.read_npz(
        path,
        {name: shape for name, (shape, _) in headers.items()},
        dtype={name: dtype for name, (_, dtype) in headers.items()},
    )
  else:
    arrays = {name: weights.read_tensor(path, name) for name in headers}
  for name, value in arrays.items():
    arrays[name] = value = value.astype(np.float32, copy=False)
    bad = value[~np.isfinite(value)]
    if name == 'threshold' and bad.size and (bad == np.inf).all():
      raise errors.DataError(
          f'{path}: tensor threshold is infinite for {bad.size} of'
          f' {value.size} latents, which therefore never fire; write a large'
          ' finite threshold, such as 1e30, in its place'
      )
    if bad.size:
      raise errors.DataError(
          f'{path}: tensor {name} has non-finite values; download it again'
      )
  return arrays
