"""PCA baseline: the FVU of the top k directions, fitted on training text.

An SAE at L0 = k is compared with PCA of rank k fitted on training tokens. Let
mu be the mean of the training tokens, V the matrix with the top k directions as
orthonormal columns, and M the scatter of the held-out tokens about mu. The
squared error on the held-out tokens is then tr((I - V V^T) M). It is exact, and
no token has to be projected.
"""

from typing import NamedTuple

import numpy as np

from jumprelu import metrics
from jumprelu.array_typing import Float


class Pca(NamedTuple):
  """The mean, and an orthonormal basis with columns by decreasing variance."""

  mean: Float[np.ndarray, ' model']
  basis: Float[np.ndarray, 'model model']


def fit(moments: metrics.Moments) -> Pca:
  """Returns PCA of every rank, fitted to the moments of training tokens."""
  _, basis = np.linalg.eigh(moments.scatter)
  return Pca(moments.mean, basis[:, ::-1])


def fvu(
    pca: Pca, held_out: metrics.Moments
) -> Float[np.ndarray, ' model_plus_one']:
  """Returns the FVU on held-out tokens at rank 0, 1, ... d_model."""
  scatter = held_out.about(pca.mean)
  explained = np.einsum('mi,mi->i', pca.basis, scatter @ pca.basis)
  unexplained = np.trace(scatter) - np.cumsum([0.0, *explained])
  return metrics.ratio(np.maximum(unexplained, 0), held_out.sum_of_squares)


def fvu_at(curve: Float[np.ndarray, ' ranks'], l0: float) -> float:
  """Returns the FVU at rank round(l0) from a curve that `fvu` returned.

  The rank is at most d_model. The result is NaN if `l0` is not finite.
  """
  if not np.isfinite(l0):
    return float('nan')
  return float(curve[min(int(np.floor(l0 + 0.5)), len(curve) - 1)])
