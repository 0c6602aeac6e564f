"""Compiled programs of an evaluation, shared by its SAEs (members).

Parameters are arguments of the programs, so SAEs of one shape share a program.
The part of the language model above a splice is compiled once per target; the
same program serves all SAEs of that target, both ablations and the clean loss.
"""

from collections.abc import Callable, Iterable, Mapping
import functools
import types
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from jumprelu import lm, metrics, sharding
from jumprelu.array_typing import Array, Bool, Float, Num
from jumprelu.evals import delta_loss, frequency, fvu, splice
from jumprelu.saes import base

# Memory limit per device for the pre-activations of a chunk, in bytes.
_CHUNK_BYTES = 1 << 28
# On a CPU the chunk should stay in the cache, but have enough rows for the
# matrix products.
_CPU_CHUNK_BYTES = 1 << 22
_CPU_ROWS = 256

# Each device holds a shard of every SAE's latents and computes them for all
# tokens of a chunk.
_RULES = sharding.LAYOUTS['latents_all'].rules


def replicate(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Returns the arrays replicated, so that every process can read them."""
  return jax.tree.map(
      lambda x: sharding.constrain(x, mesh, *[None] * x.ndim), tree
  )


def num_chunks(
    shape: tuple[int, int], width: int, *, mesh: jax.sharding.Mesh | None = None
) -> int:
  """Returns the smallest number of equal chunks that fit, if any do, in memory.

  Args:
    shape: The numbers of sequences and positions; the positions are divided.
    width: The number of float32 values in memory per token.
    mesh: The device mesh, over which the values are sharded.
  """
  sequences, positions = shape
  parts = 1
  if mesh is not None and width % mesh.size == 0:
    parts = sharding.axis_size(mesh, 'latents', rules=_RULES)
  limit = _CHUNK_BYTES
  if sharding.platform(mesh) == 'cpu':
    by_rows = _CPU_ROWS * (width // parts) * 4
    limit = min(limit, max(_CPU_CHUNK_BYTES, by_rows))
  for chunks in range(1, positions + 1):
    if positions % chunks == 0:
      rows = sequences * (positions // chunks)
      if rows * (width // parts) * 4 <= limit:
        return chunks
  return positions


def by_chunks(
    function: Callable[[tuple[Array, ...]], Any],
    width: int,
    *arrays: Array,
    mesh: jax.sharding.Mesh | None = None,
) -> Any:
  """Returns the results of `function` for chunks of positions, stacked.

  Args:
    function: Maps a tuple with a chunk of each array to a pytree. The chunks
      are replicated, and `encode` shards their latents over the devices.
    width: The number of float32 values in memory per token (`num_chunks`).
    *arrays: Arrays [sequences, positions, ...].
    mesh: The device mesh.
  """
  sequences, positions = arrays[0].shape[:2]
  chunks = num_chunks((sequences, positions), width, mesh=mesh)

  def split(x):
    shape = (sequences, chunks, positions // chunks)
    return jnp.moveaxis(x.reshape(*shape, *x.shape[2:]), 1, 0)

  def gathered(chunk):
    return function(replicate(chunk, mesh))

  return lax.map(gathered, tuple(map(split, arrays)))


def join(parts: Any) -> Any:
  """Returns the results of `by_chunks` joined along positions.

  Args:
    parts: Arrays [chunks, sequences, positions of a chunk, ...].

  Returns:
    Arrays [sequences, positions, ...].
  """

  def joined(x):
    chunks, sequences, positions, *rest = x.shape
    return jnp.moveaxis(x, 0, 1).reshape(sequences, chunks * positions, *rest)

  return jax.tree.map(joined, parts)


def encode(
    sae: base.Sae,
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions latents']:
  """Returns latents, sharded over the devices."""
  latents = sae.encode(params, inputs)
  return sharding.constrain(latents, mesh, None, None, 'latents', rules=_RULES)


def kept_rows(
    x: Float[Array, 'sequences positions model'],
    keep: Bool[Array, 'sequences positions'],
) -> Float[Array, 'sequences positions model']:
  """Returns activations in float32, zero where they are not kept."""
  return jnp.where(keep[..., None], x.astype(jnp.float32), 0)


def forward(
    model: lm.LanguageModel,
    taps: Iterable[lm.Tap],
    *,
    limits: Mapping[lm.Tap, float] = types.MappingProxyType({}),
    user_prefix: tuple[int, ...] = (),
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[[Any], splice.Batch]:
  """Returns the compiled clean forward pass for batches of token ids."""
  run = functools.partial(
      splice.forward,
      model,
      taps=tuple(taps),
      limits=limits,
      user_prefix=user_prefix,
      mesh=mesh,
  )
  return functools.partial(jax.jit(run), model.params)


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def member_sums(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    targets: Float[Array, 'sequences positions target_model'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: base.Sae,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[fvu.Reconstruction, frequency.Firing]:
  """Returns one member's reconstruction sums and firing counts."""

  def chunk_sums(chunk):
    inputs, targets, keep = chunk
    targets = kept_rows(targets, keep)
    latents = encode(sae, params, kept_rows(inputs, keep), mesh=mesh)
    outputs = sae.decode(params, latents, kept_rows(inputs, keep))
    return (
        fvu.Reconstruction.from_batch(targets, outputs, keep),
        frequency.Firing.from_batch(latents, keep),
    )

  arrays = inputs, targets, keep
  parts = by_chunks(chunk_sums, sae.width, *arrays, mesh=mesh)
  return replicate(jax.tree.map(lambda x: x.sum(0), parts), mesh)


class ByPosition(NamedTuple):
  """Statistics of one member, which are 0 at positions that are not kept."""

  l0: Num[Array, 'sequences positions']
  l1: Float[Array, 'sequences positions']
  residual: Float[Array, 'sequences positions']  # ||y - yhat||^2


@functools.partial(jax.jit, static_argnames=('sae', 'mesh'))
def by_position(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    targets: Float[Array, 'sequences positions target_model'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: base.Sae,
    mesh: jax.sharding.Mesh | None = None,
) -> ByPosition:
  """Returns one member's sparsity and squared error at each position."""

  def run(chunk):
    inputs, targets, keep = chunk
    inputs = kept_rows(inputs, keep)
    latents = encode(sae, params, inputs, mesh=mesh)
    latents = jnp.where(keep[..., None], latents, 0)
    outputs = sae.decode(params, latents, inputs)
    errors = jnp.square(kept_rows(outputs, keep) - kept_rows(targets, keep))
    return ByPosition(
        (latents != 0).sum(-1), jnp.abs(latents).sum(-1), errors.sum(-1)
    )

  parts = by_chunks(run, sae.width, inputs, targets, keep, mesh=mesh)
  return join(parts)


@functools.partial(jax.jit, static_argnames=('sae', 'mesh', 'dtype'))
def reconstruct(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    targets: Float[Array, 'sequences positions target_model'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: base.Sae,
    mesh: jax.sharding.Mesh | None = None,
    dtype: Any = jnp.float32,
) -> Float[Array, 'sequences positions target_model']:
  """Returns one member's reconstruction in the dtype of its targets.

  Inputs and latents are rounded to `dtype`. Matrix products always accumulate
  in float32.
  """

  def run(chunk):
    rows = kept_rows(*chunk).astype(dtype)
    latents = encode(sae, params, rows, mesh=mesh).astype(dtype)
    value = sae.decode(params, latents, rows)
    return sharding.constrain(value, mesh, 'sequences', None, None)

  parts = by_chunks(run, sae.width, inputs, keep, mesh=mesh)
  return _like(join(parts), targets, mesh)


@functools.partial(jax.jit, static_argnames=('mesh',))
def fill(
    vector: Float[Array, ' target_model'],
    targets: Float[Array, 'sequences positions target_model'],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions target_model']:
  """Returns `vector` at every position, in the dtype of the targets."""
  return _like(jnp.broadcast_to(vector, targets.shape), targets, mesh)


@functools.partial(jax.jit, static_argnames=('mesh',))
def copy(
    targets: Float[Array, 'sequences positions target_model'],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions target_model']:
  """Returns the targets, sharded like every other spliced value."""
  return _like(targets, targets, mesh)


def _like(value, targets, mesh):
  # Another dtype or sharding would recompile the program above the splice.
  value = value.astype(targets.dtype)
  return sharding.constrain(value, mesh, 'sequences', None, None)


@functools.partial(jax.jit, static_argnames=('mesh',))
def target_sums(
    targets: Float[Array, 'sequences positions target_model'],
    keep: Bool[Array, 'sequences positions'],
    shift: Float[Array, ' target_model'],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> metrics.ShiftedSums:
  """Returns one batch's sums about `shift`, a vector near the mean."""
  sums = metrics.ShiftedSums.from_batch(targets, keep, shift)
  return replicate(sums, mesh)


def spliced_losses(
    model: lm.LanguageModel,
    target: lm.Tap,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[[splice.Batch, Any], Float[Array, 'sequences positions']]:
  """Returns a compiled function from a batch and a spliced value to losses."""

  @jax.jit
  def run(params, batch, value):
    return splice.losses(
        model, params, batch, target=target, value=value, mesh=mesh
    )

  return functools.partial(run, model.params)


@functools.partial(jax.jit, static_argnames=('mesh',))
def sequence_losses(
    losses: Float[Array, 'sequences positions'],
    batch: splice.Batch,
    *,
    clean: Float[Array, 'sequences positions'] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> delta_loss.SequenceLosses:
  """Returns sums of the losses, or of losses - clean, for each sequence.

  Only scored positions are summed (`splice.Batch.scored`).
  """
  sums = delta_loss.SequenceLosses.from_batch(losses, batch.scored, clean=clean)
  return replicate(sums, mesh)
