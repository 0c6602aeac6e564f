"""Array types for public signatures.

Axis words, everywhere the same: batch (rows fed to an SAE), sequences,
positions, model (width of an activation), target_model (width of what is
reconstructed), latents, members (SAEs of one group), layers, vocab.

The types are checked by the tests' import hook only; runs pay nothing.
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
