"""What every implementation is given: one SAE, batches, and a wanted L0.

NumPy only: it is read by processes that have neither JAX nor this package.
"""

from concurrent import futures
import dataclasses
import os
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
  """A size of SAE and batch, and how many steps a turn of it takes."""

  d_model: int
  width: int
  batch: int
  steps: int


SHAPES = {
    'XS': Shape(64, 512, 128, 8),  # To try the code.
    'S': Shape(256, 4096, 1024, 8),
    'M': Shape(512, 8192, 1024, 4),
    'L': Shape(2304, 16384, 512, 4),
    'L4': Shape(2304, 16384, 4096, 8),  # For accelerators, as the next one.
    'XL': Shape(2304, 131072, 4096, 4),
}
BATCHES = 4
BANDWIDTH = 1e-3
# Small: what is timed does not change while it is.
LEARNING_RATE = 1e-6
COEFFICIENT = 1e-3

# Latents whose pre-activations are in memory together.
_CHUNK = 4096
# A latent is active on no more than this share of rows.
_MOST = 0.5
_EXPONENT = 0.8


def frequencies(width: int, l0: float, *, zipf: bool) -> np.ndarray:
  """Returns on which share of rows each latent is to be active."""
  if not zipf:
    return np.full(width, l0 / width)
  share = np.arange(1, width + 1) ** -_EXPONENT
  for _ in range(50):  # What is cut off the first goes to the others.
    share = np.minimum(share * (l0 / share.sum()), _MOST)
  return np.random.default_rng(1).permutation(share)


def make(shape: Shape, l0: float, *, zipf: bool) -> dict[str, np.ndarray]:
  """Draws the arrays; thresholds are quantiles of the pre-activations.

  The encoder is the decoder turned, and not among them: at the largest shape
  either takes a gigabyte, which each process would have to read.
  """
  rng = np.random.default_rng(0)
  d, width = shape.d_model, shape.width
  x = rng.standard_normal((BATCHES, shape.batch, d), np.float32)
  x /= np.float32(np.sqrt(d))
  W_dec = rng.uniform(-1, 1, (width, d)).astype(np.float32)
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  wanted = frequencies(width, l0, zipf=zipf)
  threshold = _thresholds(x.reshape(-1, d), W_dec, wanted)
  return {
      'x': x,
      'W_dec': W_dec,
      'b_enc': np.zeros(width, np.float32),
      'b_dec': np.zeros(d, np.float32),
      # Positive, as every JumpReLU's.
      'threshold': np.maximum(threshold, 2 * np.float32(BANDWIDTH)),
  }


def _thresholds(
    rows: np.ndarray, W_dec: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
  cores = os.cpu_count() or 1
  found = []
  with futures.ThreadPoolExecutor(cores) as pool:
    for start in range(0, len(W_dec), _CHUNK):
      part = slice(start, start + _CHUNK)
      # A row a latent: what is sorted lies together. NumPy sorts without
      # holding the interpreter's lock.
      pre_acts = np.array_split(W_dec[part] @ rows.T, cores)
      shares = np.array_split(1 - wanted[part], cores)
      found += pool.map(_quantiles, pre_acts, shares)
  return np.concatenate(found)


def _quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
  """Returns a quantile of each row, as np.quantile would; sorts the rows."""
  values.sort(axis=1)
  place = shares * (values.shape[1] - 1)
  low = place.astype(np.int64)
  high = np.minimum(low + 1, values.shape[1] - 1)
  number = np.arange(len(values))
  below, above = values[number, low], values[number, high]
  return (below + (above - below) * (place - low)).astype(np.float32)


def save(folder: pathlib.Path, shape: Shape, l0: float, *, zipf: bool) -> None:
  """Writes the arrays for other processes to read, a file each."""
  arrays = make(shape, l0, zipf=zipf)
  arrays |= {'l0': np.int64(l0), 'steps': np.int64(shape.steps)}
  for name, array in arrays.items():
    np.save(folder / f'{name}.npy', array)


def load(folder: str) -> dict[str, np.ndarray]:
  """Reads what `save` wrote."""
  paths = pathlib.Path(folder).glob('*.npy')
  return {path.stem: np.load(path) for path in paths}
