"""Array types for public signatures.

Names of axes in all signatures: batch (rows of an SAE's input), sequences,
positions, model (dimensions of an SAE's input), target_model (dimensions of its
reconstruction), latents, members (SAEs that are trained together, stacked),
layers, vocab.

Types are checked in tests only, by an import hook, so runs have no overhead.
"""

from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Int32, Key, Num, Shaped, UInt32

__all__ = [
    'Array',
    'Bool',
    'Float',
    'Float32',
    'Int',
    'Int32',
    'Key',
    'Num',
    'Shaped',
    'UInt32',
]
