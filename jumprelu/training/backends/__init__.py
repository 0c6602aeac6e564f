"""Backends: faster ways to compute the step that `training.step.step` defines.

  dense   hand-written gradients; any device and sharding
  sparse  only pairs of row and latent with a gradient, in JAX; one device
  native  the same in C++; one CPU
  pallas  the same in Pallas; one GPU

All of them support plain JumpReLU SAEs, which have the paper's kernel, no
gradient from the loss to the pre-activations, and no skip term. `sparse` and
`native` also support TopK and BatchTopK SAEs without a skip term. Other SAEs
are trained by the backend `oracle`, which calls `training.step.step` itself.
"""

from jumprelu.training.backends.choice import AUTO, choose, dense_in_place
from jumprelu.training.backends.full_gradient import Dense
from jumprelu.training.backends.in_place_update import (
    DenseInPlace,
    Native,
    Pallas,
    Sparse,
)
from jumprelu.training.backends.interface import (
    DEAD_AFTER,
    Backend,
    Outcome,
    count,
    frozen_metrics,
    is_frozen,
    metrics,
    select,
)
from jumprelu.training.backends.plain import is_plain

__all__ = [
    'AUTO', 'Backend', 'DEAD_AFTER', 'Dense', 'DenseInPlace', 'Native',
    'Outcome', 'Pallas', 'Sparse', 'choose', 'count', 'dense_in_place',
    'frozen_metrics', 'is_frozen', 'is_plain', 'metrics', 'select',
]  # fmt: skip
