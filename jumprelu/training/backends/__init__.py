"""Faster ways to compute the step that `training.step.step` defines.

  dense   hand-written gradients; any device and sharding
  sparse  only pairs with a gradient, in JAX; one device
  native  the same in C++; one CPU
  pallas  the same in Pallas; one GPU

All of them need a plain JumpReLU: the paper's kernel, and no gradient to the
pre-activations. Every other SAE gets the oracle, the definition itself.
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
    metrics,
    select,
)
from jumprelu.training.backends.plain_jumprelu import is_plain

__all__ = [
    'AUTO', 'Backend', 'DEAD_AFTER', 'Dense', 'DenseInPlace', 'Native',
    'Outcome', 'Pallas', 'Sparse', 'choose', 'count', 'dense_in_place',
    'is_plain', 'metrics', 'select',
]  # fmt: skip
