"""The native step in C++, for CPUs: one call that updates matrices in place.

The step finds its pairs by `encode`, also without computing all pre-activations.
The library also has the digests of arrays (`files.digests`).

The C++ library is an optional part of the installation. Without a compiler the
package is installed without it, and `why_not` returns the reason.
"""

from collections.abc import Sequence
import ctypes
import functools
from importlib import metadata
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Int32, Shaped, UInt32
from jumprelu.ops import active_pairs

_STEP, _CATCH_UP = 'jumprelu_step', 'jumprelu_catch_up'
_ENCODE, _DIGEST = 'jumprelu_encode', 'jumprelu_digest'
# Dimensions of inputs, as in `encode.h`.
_TOO_WIDE = 2**16
_FOLDER = pathlib.Path(__file__).parent


@functools.cache
def why_not() -> str:
  """Returns why the native step cannot be used; empty if it can.

  The first call loads the library and registers its functions with XLA.
  """
  libraries = _libraries()
  if not libraries:
    return (
        'its library was not built from these sources, because the installation'
        ' found no C++ compiler or the sources changed since; install jumprelu'
        ' again'
    )
  try:
    library = ctypes.CDLL(str(libraries[0]))
    for name in (_STEP, _CATCH_UP, _ENCODE, _DIGEST):
      capsule = jax.ffi.pycapsule(getattr(library, name))
      jax.ffi.register_ffi_target(name, capsule, platform='cpu')
  except (OSError, AttributeError, RuntimeError) as error:
    return f'{libraries[0].name} does not load: {error}'
  return ''


@functools.cache
def encode_kernel() -> str:
  """Returns the name of the integer kernel of `encode`; '' if it cannot be used.

  The kernel depends on the CPU. Without one, pre-activations are computed by
  XLA, which is then as fast.
  """
  if why_not():
    return ''
  name = ctypes.CDLL(str(_libraries()[0])).jumprelu_encode_kernel
  name.restype = ctypes.c_char_p
  return name().decode()


def _libraries() -> list[pathlib.Path]:
  """Returns the paths of the library; empty if there is none.

  The library is next to this file, except in a checkout that was not built. A
  checkout uses the library of an installation if its sources are the same.
  """
  built = sorted(_FOLDER.glob('_step*.so'))
  if built or not (_FOLDER.parents[2] / 'setup.py').is_file():
    return built
  # There can be two distributions of this name, because a build leaves its
  # metadata in the checkout.
  for distribution in metadata.distributions(name='jumprelu'):
    folder = distribution.locate_file('jumprelu/ops/native')
    libraries = sorted(pathlib.Path(str(folder)).glob('_step*.so'))
    if libraries and _has_same_sources(libraries[0].parent):
      return libraries
  return []


def _has_same_sources(installed: pathlib.Path) -> bool:
  """Returns whether a folder has the same C++ sources as this one."""
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
  """Returns both matrices after a step in place, and the step's result.

  Only the rows of active latents are updated. A non-finite step is skipped. If
  the batch has a bias, the step computes its own pre-activations (`encode`).

  Raises:
    RuntimeError: The library cannot be used (`why_not`).
  """
  return call_library(matrices, batch, scalars, settings=settings, update=True)


def catch_up(
    matrices: active_pairs.Matrices, clock: Int32[Array, ''], *, b2: float
) -> active_pairs.Matrices:
  """Returns the matrices with all second moments decayed up to `clock`.

  The second moments are changed in place. The result equals that of decaying
  them in every step: since beta1 is 0, a step without a gradient changes only
  the second moments, which it multiplies by b2. `why_not` or `step` must have
  loaded the library.
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


class Encoded(NamedTuple):
  """The selected pairs of each row."""

  # Latents in ascending order, and their pre-activations; then zeros.
  latents: Int32[Array, 'rows room']
  values: Float[Array, 'rows room']
  # The number of pairs of each row. If it exceeds the room, pairs are missing.
  counts: Int32[Array, ' rows']
  # The number of pre-activations of each row that were computed in float32.
  candidates: Int32[Array, ' rows']


@functools.partial(jax.jit, static_argnames=('room', 'bandwidth'))
def encode(
    inputs: Float[Array, 'rows model'],
    encoder: Float[Array, 'latents model'],
    b_enc: Float[Array, ' latents'],
    threshold: Float[Array, ' latents'],
    *,
    room: int,
    bandwidth: float = 0.0,
) -> Encoded:
  """Returns the pairs above the threshold minus half the bandwidth.

  Only pairs that could be among them are computed in float32. The others are
  excluded by products of 7 or 8-bit integers and a bound on their error, which
  `encode.h` proves. `encode_kernel` must have returned a name.

  Args:
    inputs: The inputs of the encoder, fewer than 65,536 dimensions. With a
      pre-encoder bias, b_dec is already subtracted.
    encoder: The encoder, with one row for each latent.
    b_enc: The biases.
    threshold: The thresholds.
    room: The number of pairs of a row that are returned.
    bandwidth: The width of the kernel around the thresholds.
  """
  shape = jax.ShapeDtypeStruct
  rows = len(inputs)
  results = [
      shape((rows, room), jnp.int32),
      shape((rows, room), jnp.float32),
      shape((rows,), jnp.int32),
      shape((rows,), jnp.int32),
  ]
  call = jax.ffi.ffi_call(_ENCODE, results)
  operands = inputs, encoder, b_enc, threshold
  return Encoded(*call(*operands, bandwidth=np.float32(bandwidth)))


def digest(
    arrays: Sequence[Shaped[Array, '...']],
    prefixes: UInt32[Array, 'rows salts'],
) -> tuple[UInt32[Array, 'arrays salts'], Bool[Array, ' arrays']]:
  """Returns the sums of `files.digests`, and whether all words are finite floats.

  `why_not` must have loaded the library.

  Args:
    arrays: Arrays of one shape, each of any type of 32 bits. Their rows are those
      of the last axis.
    prefixes: The hash of each row's index, for each salt.
  """
  shape = jax.ShapeDtypeStruct
  count, salts = len(arrays), prefixes.shape[1]
  results = [shape((count, salts), jnp.uint32), shape((count,), jnp.bool_)]
  sums, finite = jax.ffi.ffi_call(_DIGEST, results)(prefixes, *arrays)
  return sums, finite


def call_library(
    matrices: active_pairs.Matrices,
    batch: active_pairs.Batch,
    scalars: active_pairs.AdamScalars,
    *,
    settings: active_pairs.Settings,
    update: bool,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns both matrices after a step in place, and the step's result.

  Without `update`, the gradients of encoder and decoder are returned in the
  fields of these matrices, and nothing is updated.

  Raises:
    RuntimeError: The library cannot be used (`why_not`).
  """
  if why_not():
    raise RuntimeError(f'the native step cannot be used: {why_not()}')
  numbers = jnp.stack(
      [
          jnp.float32(batch.coefficient),
          jnp.float32(batch.target_l0),
          jnp.float32(scalars.learning_rate),
          jnp.float32(scalars.correction),
      ]
  )
  empty = jnp.zeros((len(batch.inputs), 0), jnp.float32)
  wide = batch.inputs.shape[1] >= _TOO_WIDE
  if batch.b_enc is not None and encode_kernel() and not wide:
    encoded = empty, batch.b_enc
  else:
    encoded = batch.pre_acts, empty[0]
  operands = (*encoded, *batch[1:6], numbers, scalars.clock, *matrices)
  # Encoder and decoder are the first two results. Without `update` they get
  # memory of their own, because gradients must not overwrite the weights, which
  # are still read.
  first = 0 if update else 2
  offset = len(operands) - len(matrices)
  aliases = {offset + i: i for i in range(first, len(matrices))}
  call = jax.ffi.ffi_call(
      _STEP, _step_results(matrices), input_output_aliases=aliases
  )
  results = call(
      *operands,
      update=update,
      pre_encoder_bias=settings.pre_encoder_bias,
      target_l0=settings.target_l0,
      bandwidth=np.float32(settings.bandwidth),
      b2=np.float64(settings.b2),
      eps=np.float32(settings.eps),
      clip=np.float32(settings.clip),
  )
  size = len(active_pairs.Matrices._fields)
  return (
      active_pairs.Matrices(*results[:size]),
      active_pairs.StepResult(*results[size:]),
  )


def _step_results(
    matrices: active_pairs.Matrices,
) -> list[jax.ShapeDtypeStruct]:
  """Returns the shapes of the step's results: the matrices, and the others."""
  latents, d_out = matrices.decoder.shape
  shape = jax.ShapeDtypeStruct
  return [
      *(shape(x.shape, x.dtype) for x in matrices),
      shape((latents,), jnp.float32),
      shape((d_out,), jnp.float32),
      shape((latents,), jnp.float32),
      shape((latents,), jnp.int32),
      shape((), jnp.float32),
      shape((), jnp.float32),
      shape((), jnp.bool_),
      shape((), jnp.int32),
  ]
