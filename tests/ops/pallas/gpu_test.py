"""The kernels are lowered for a GPU, which need not be present."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from jumprelu.ops import active_pairs, pallas


def _lower(latents, d_in, d_out, batch):
  """Returns the text of a step that is lowered for CUDA."""
  shape = jax.ShapeDtypeStruct
  float32 = functools.partial(shape, dtype=jnp.float32)
  encoder, decoder = float32((latents, d_in)), float32((latents, d_out))
  touched, clock = shape((latents,), jnp.int32), shape((), jnp.int32)
  example = active_pairs.Batch(
      pre_acts=float32((batch, latents)),
      inputs=float32((batch, d_in)),
      targets=float32((batch, d_out)),
      keep=shape((batch,), jnp.bool_),
      threshold=float32((latents,)),
      b_dec=float32((d_out,)),
      coefficient=float32(()),
      target_l0=float32(()),
  )
  settings = active_pairs.Settings(1e-3, d_in == d_out, target_l0=False)
  call = functools.partial(pallas.step, settings=settings, cap=256)
  traced = jax.jit(call).trace(
      active_pairs.Matrices(encoder, decoder, encoder, decoder, touched),
      example,
      active_pairs.AdamScalars(float32(()), float32(()), clock),
  )
  return traced.lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize(
    'shape',
    [
        # Sizes of Gemma 2, and of a transcoder that no tile size divides.
        (16384, 2304, 2304, 4096),
        (131072, 3584, 3584, 4096),
        (1 << 20, 4608, 4608, 4096),
        (1000, 99, 77, 203),
    ],
    ids=str,
)
def test_a_step_is_three_kernels_through_triton(shape):
  text = _lower(*shape)
  assert len(re.findall(r'custom_call @\S*triton', text)) == 3
  # Atomic sums would depend on the order of programs.
  assert 'atomic' not in text
