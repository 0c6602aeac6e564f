"""What every implementation is given: one SAE, batches, and a wanted L0.

NumPy only: it is read by processes that have neither JAX nor this package.
"""

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
  """Draws the arrays; thresholds are quantiles of the pre-activations."""
  rng = np.random.default_rng(0)
  d, width = shape.d_model, shape.width
  x = rng.standard_normal((BATCHES, shape.batch, d), np.float32)
  x /= np.float32(np.sqrt(d))
  W_dec = rng.uniform(-1, 1, (width, d)).astype(np.float32)
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  rows = x.reshape(-1, d)
  threshold = np.empty(width, np.float32)
  wanted = frequencies(width, l0, zipf=zipf)
  for start in range(0, width, 4096):
    part = slice(start, start + 4096)
    pre_acts = rows @ W_dec[part].T
    threshold[part] = [
        np.quantile(pre_acts[:, i], 1 - share)
        for i, share in enumerate(wanted[part])
    ]
  return {
      'x': x,
      'W_enc': np.ascontiguousarray(W_dec.T),
      'W_dec': W_dec,
      'b_enc': np.zeros(width, np.float32),
      'b_dec': np.zeros(d, np.float32),
      # Positive, as every JumpReLU's.
      'threshold': np.maximum(threshold, 2 * np.float32(BANDWIDTH)),
  }


def save(path: pathlib.Path, shape: Shape, l0: float, *, zipf: bool) -> None:
  """Writes the arrays for other processes to read."""
  arrays = make(shape, l0, zipf=zipf)
  # So that what is there at all is whole.
  part = path.with_suffix('.part.npz')
  np.savez(part, l0=np.int64(l0), steps=np.int64(shape.steps), **arrays)
  os.replace(part, path)
