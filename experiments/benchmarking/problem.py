"""The problem for all implementations: one SAE, and batches with a mean L0.

This module needs only NumPy, because the peers' environment has neither JAX nor
this package.
"""

from concurrent import futures
import dataclasses
import os
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
  """A size of SAE and batch, and the number of steps of a trial."""

  d_model: int
  width: int
  batch: int
  steps: int


SHAPES = {
    'XS': Shape(64, 512, 128, 8),  # For tests.
    'S': Shape(256, 4096, 1024, 8),
    'M': Shape(512, 8192, 1024, 4),
    'L': Shape(2304, 16384, 512, 4),
    # L4 and XL are for accelerators.
    'L4': Shape(2304, 16384, 4096, 8),
    'XL': Shape(2304, 131072, 4096, 4),
}
BATCHES = 4
BANDWIDTH = 1e-3
# Small, so that the SAE does not change while it is timed.
LEARNING_RATE = 1e-6
COEFFICIENT = 1e-3

# Latents whose pre-activations are in memory together.
_CHUNK = 4096
# The largest share of rows on which a latent is active.
_MAX_SHARE = 0.5
# The exponent of Zipf frequencies: the n-th latent's share is n ** -_EXPONENT.
_EXPONENT = 0.8


def frequencies(width: int, l0: float, *, zipf: bool) -> np.ndarray:
  """Returns the share of rows on which each latent should be active."""
  if not zipf:
    return np.full(width, l0 / width)
  share = np.arange(1, width + 1) ** -_EXPONENT
  # Repeated, because a share above the maximum is limited to it and the other
  # shares are then scaled up to preserve L0.
  for _ in range(50):
    share = np.minimum(share * (l0 / share.sum()), _MAX_SHARE)
  return np.random.default_rng(1).permutation(share)


def make(shape: Shape, l0: float, *, zipf: bool) -> dict[str, np.ndarray]:
  """Returns random arrays; thresholds are quantiles of the pre-activations.

  The encoder is the transposed decoder. It is not one of the arrays, because at
  the largest shape each process would have to read another gigabyte.
  """
  rng = np.random.default_rng(0)
  d, width = shape.d_model, shape.width
  x = rng.standard_normal((BATCHES, shape.batch, d), np.float32)
  x /= np.float32(np.sqrt(d))
  W_dec = rng.uniform(-1, 1, (width, d)).astype(np.float32)
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  shares = frequencies(width, l0, zipf=zipf)
  threshold = _thresholds(x.reshape(-1, d), W_dec, shares)
  return {
      'x': x,
      'W_dec': W_dec,
      'b_enc': np.zeros(width, np.float32),
      'b_dec': np.zeros(d, np.float32),
      # Thresholds of a JumpReLU are positive.
      'threshold': np.maximum(threshold, 2 * np.float32(BANDWIDTH)),
  }


def _thresholds(
    rows: np.ndarray, W_dec: np.ndarray, shares: np.ndarray
) -> np.ndarray:
  cores = os.cpu_count() or 1
  quantiles = []
  with futures.ThreadPoolExecutor(cores) as pool:
    for start in range(0, len(W_dec), _CHUNK):
      chunk = slice(start, start + _CHUNK)
      # One row per latent, because contiguous values are sorted fastest.
      # Threads help, because NumPy sorts without holding the interpreter's
      # lock.
      pre_acts = np.array_split(W_dec[chunk] @ rows.T, cores)
      levels = np.array_split(1 - shares[chunk], cores)
      quantiles += pool.map(_quantiles, pre_acts, levels)
  return np.concatenate(quantiles)


def _quantiles(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Returns one quantile of each row, as np.quantile; sorts rows in place."""
  values.sort(axis=1)
  place = levels * (values.shape[1] - 1)
  low = place.astype(np.int64)
  high = np.minimum(low + 1, values.shape[1] - 1)
  number = np.arange(len(values))
  below, above = values[number, low], values[number, high]
  return (below + (above - below) * (place - low)).astype(np.float32)


def save(folder: pathlib.Path, shape: Shape, l0: float, *, zipf: bool) -> None:
  """Writes one file per array, for other processes to read."""
  arrays = make(shape, l0, zipf=zipf)
  arrays |= {'l0': np.int64(l0), 'steps': np.int64(shape.steps)}
  for name, array in arrays.items():
    np.save(folder / f'{name}.npy', array)


def load(folder: str) -> dict[str, np.ndarray]:
  """Reads the arrays that `save` wrote."""
  paths = pathlib.Path(folder).glob('*.npy')
  return {path.stem: np.load(path) for path in paths}
