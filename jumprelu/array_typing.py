"""Array types for public signatures.

Names of axes in all signatures: batch (rows of an SAE's input), sequences,
positions, model (width of an activation), target_model (width of a
reconstruction), latents, members (SAEs of one group), layers, vocab.

Only the tests' import hook checks the types, so runs have no overhead.
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
