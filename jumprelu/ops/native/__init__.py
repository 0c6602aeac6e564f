"""The native way of `pairs` on CPU: one fused call that updates in place.

The library is an optional part of the build: without a C++ compiler the package
installs without it, and `why_not` says so.
"""

import ctypes
import functools
from importlib import metadata
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Int32
from jumprelu.ops import active_pairs

_STEP, _CATCH_UP = 'jumprelu_step', 'jumprelu_catch_up'
_FOLDER = pathlib.Path(__file__).parent


@functools.cache
def why_not() -> str:
  """Say why the native step cannot be used; empty where it can."""
  libraries = _libraries()
  if not libraries:
    return 'it was not built: the installation results no C++ compiler'
  try:
    library = ctypes.CDLL(str(libraries[0]))
    for name in (_STEP, _CATCH_UP):
      capsule = jax.ffi.pycapsule(getattr(library, name))
      jax.ffi.register_ffi_target(name, capsule, platform='cpu')
  except (OSError, AttributeError, RuntimeError) as error:
    return f'{libraries[0].name} does not load: {error}'
  return ''


def _libraries() -> list[pathlib.Path]:
  """Find the library: here or, for a checkout, where it is installed.

  What is run in a checkout is its built_here code, which nobody has built; the
  installed library will do if it was built from the same sources.
  """
  built_here = sorted(_FOLDER.glob('_step*.so'))
  if built_here or not (_FOLDER.parents[2] / 'setup.py').is_file():
    return built_here
  # Building leaves a record of the distribution in the checkout as well.
  for distribution in metadata.distributions(name='jumprelu'):
    place = distribution.locate_file('jumprelu/ops/native')
    libraries = sorted(pathlib.Path(str(place)).glob('_step*.so'))
    if libraries and _is_of_these_sources(libraries[0].parent):
      return libraries
  return []


def _is_of_these_sources(installed: pathlib.Path) -> bool:
  for source in (*_FOLDER.glob('*.cc'), *_FOLDER.glob('*.h')):
    other = installed / source.name
    if not other.is_file() or other.read_bytes() != source.read_bytes():
      return False
  return True


def step(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Take one step on the touched rows of both matrices."""
  results = call(matrices, batch, scalars, settings=settings, update=True)
  return active_pairs.Matrices(*results[:5]), active_pairs.StepResult(*results[5:])


def catch_up(
    matrices: active_pairs.Matrices, clock: Int32[Array, ''], *, b2: float
) -> active_pairs.Matrices:
  """Let the second moments of untouched rows decay up to `clock`, in place.

  Exact where beta1 is 0: a step without a gradient only multiplies by b2.
  """
  nu = matrices.nu_encoder, matrices.nu_decoder
  call = jax.ffi.ffi_call(
      _CATCH_UP,
      [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in nu],
      input_output_aliases={0: 0, 1: 1},
  )
  nu = call(*nu, matrices.touched, clock, b2=np.float64(b2))
  return matrices._replace(
      nu_encoder=nu[0],
      nu_decoder=nu[1],
      touched=jnp.full_like(matrices.touched, clock),
  )


def call(matrices, batch, scalars, *, settings, update):
  """Call the library; the matrices and `touched` are updated in place."""
  if why_not():
    raise RuntimeError(f'no native step: {why_not()}')
  latents, d_out = matrices.decoder.shape
  shape = jax.ShapeDtypeStruct
  results = [shape(x.shape, x.dtype) for x in matrices]
  results += [
      shape((latents,), jnp.float32),
      shape((d_out,), jnp.float32),
      shape((latents,), jnp.float32),
      shape((latents,), jnp.int32),
      shape((), jnp.float32),
      shape((), jnp.float32),
      shape((), jnp.bool_),
  ]
  numbers = jnp.stack(
      [
          jnp.float32(batch.coefficient),
          jnp.float32(batch.target_l0),
          jnp.float32(scalars.learning_rate),
          jnp.float32(scalars.correction),
      ]
  )
  operands = (*batch[:6], numbers, scalars.clock, *matrices)
  first = 0 if update else 2  # Gradients do not lie where the weights do.
  aliases = {8 + i: i for i in range(first, len(matrices))}
  call = jax.ffi.ffi_call(_STEP, results, input_output_aliases=aliases)
  return call(
      *operands,
      update=update,
      pre_encoder_bias=settings.pre_encoder_bias,
      target_l0=settings.target_l0,
      bandwidth=np.float32(settings.bandwidth),
      b2=np.float64(settings.b2),
      eps=np.float32(settings.eps),
  )
