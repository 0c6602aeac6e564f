"""Blocks of activations on the device: cleaned, shuffled, split into batches.

The permutation is defined on a fixed number of logical shards, which are
sharded over the `data` axis. A batch therefore holds the same rows on any
number of devices, and shuffling moves no rows between devices.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jumprelu import lm, sharding
from jumprelu.activations import dropped_rows
from jumprelu.array_typing import Array, Bool, Float, Float32, Int, Int32

# (parameters of the language model, tokens) -> the activations at each tap.
# A sequence's activations do not depend on the other sequences.
Forward = Callable[[Any, Array], Mapping[lm.Tap, Array]]

# An array, or its shape or sharding in a tree of those.
Leaf = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
  """One block on the device, in `shards` logical shards of `slots` rows."""

  # {tap: [shards, slots, d_site]}: unscaled, with zeros in dropped rows.
  activations: dict[lm.Tap, Leaf]
  # {tap: []}: 1 / scale of the tap.
  inverse_scale: dict[lm.Tap, Leaf]
  # [shards, slots]: a mask of the kept rows.
  keep: Leaf
  # [shards, slots]: a permutation of each shard's slots.
  order: Leaf
  # []: the number of text rows dropped for being non-finite or too large.
  dropped: Leaf


@runtime_checkable
class Source(Protocol):
  """A source of a run's blocks: a language model's stream, or a store."""

  def make_block(self, index: int, scales: Mapping[lm.Tap, float]) -> Block:
    """Returns block `index`, with the taps' scales."""
    ...

  def estimate_scales(self) -> dict[lm.Tap, float]:
    """Returns sqrt(E||x||^2) of each tap."""
    ...

  def put(self, value: int | float) -> Array:
    """Puts a number on every device as int32 or float32."""
    ...


def rows(
    block: Block, index: Int[Array, ''], size: int
) -> tuple[dict[lm.Tap, Float[Array, 'batch _']], Bool[Array, ' batch']]:
  """Returns the unscaled rows of batch `index`, and their keep mask.

  A batch consists of the next size / shards slots of *every* shard, in shard
  order. It therefore samples the whole block evenly, and no row leaves its
  device.
  """
  share = size // block.order.shape[0]
  slots = jax.lax.dynamic_slice_in_dim(
      block.order, index * share, share, axis=1
  )
  gather = jax.vmap(lambda rows, slots: rows[slots])
  activations = {
      tap: gather(stored, slots).reshape(size, -1)
      for tap, stored in block.activations.items()
  }
  return activations, gather(block.keep, slots).reshape(size)


def scaled(
    x: Float[Array, 'batch _'], inverse_scale: Float[Array, '']
) -> Float32[Array, 'batch _']:
  """Returns stored rows in float32, scaled to E||x||^2 = 1."""
  return x.astype(jnp.float32) * inverse_scale


def concatenated(
    activations: Mapping[lm.Tap, Float[Array, 'batch _']],
    taps: tuple[lm.Tap, ...],
) -> Float[Array, 'batch _']:
  """Returns the activations at `taps`, concatenated along the last axis.

  A single tap's array is returned without a copy.
  """
  parts = [activations[tap] for tap in taps]
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def make_order(
    seed: int, index: Int[Array, ''], *, shards: int, slots: int
) -> Int32[Array, 'shards slots']:
  """Returns a permutation for each shard, a function of seed and index only."""
  key = jax.random.fold_in(jax.random.key(seed), index)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(shards))
  permute = functools.partial(jax.random.permutation, x=slots)
  return jax.vmap(permute)(keys).astype(jnp.int32)


def make_block(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    index: Int[Array, ''],
    inverse_scale: dict[lm.Tap, Array],
    *,
    lm_sequences: int,
    shards: int,
    seed: int,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> Block:
  """Returns block `index`, after the forward pass, cleaning and shuffling."""
  activations, keep, dropped = forward_all(
      forward,
      params,
      tokens,
      inverse_scale,
      lm_sequences=lm_sequences,
      user_prefix=user_prefix,
      mesh=mesh,
  )
  slots = tokens.size // shards
  return Block(
      activations={
          tap: _spread(x.reshape(shards, slots, x.shape[-1]), mesh)
          for tap, x in activations.items()
      },
      inverse_scale=inverse_scale,
      keep=_spread(keep.reshape(shards, slots), mesh),
      order=_spread(make_order(seed, index, shards=shards, slots=slots), mesh),
      dropped=dropped,
  )


def forward_all(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    inverse_scale: dict[lm.Tap, Array],
    *,
    lm_sequences: int,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> tuple[dict[lm.Tap, Float[Array, '...']], Bool[Array, '...'], Array]:
  """Returns the cleaned activations, the keep mask and the dropped rows' count.

  The loop forwards `lm_sequences` at a time on the device. Each device writes
  the rows of its own sequences to its own shard of the buffers, which are
  [data, forwards, sequences per device, positions, d_site].
  """
  data = mesh.shape['data'] if mesh is not None else 1
  per_device, length = lm_sequences // data, tokens.shape[1]
  tokens = tokens.reshape(data, -1, per_device, length)

  def part(number):
    rows = jax.lax.dynamic_index_in_dim(tokens, number, 1, keepdims=False)
    rows = _spread(rows.reshape(lm_sequences, length), mesh)
    # Without the barrier, XLA would gather weights that are sharded over
    # `data` before the loop, all layers at once.
    weights, rows = jax.lax.optimization_barrier((params, rows))
    *cleaned, dropped = dropped_rows.clean(
        forward(weights, rows), rows, inverse_scale, user_prefix=user_prefix
    )
    parts = jax.tree.map(
        lambda x: _spread(x, mesh).reshape(data, per_device, *x.shape[1:]),
        cleaned,
    )
    return parts, dropped

  def write(number, carry):
    buffers, dropped = carry
    parts, more = part(number)
    buffers = jax.tree.map(
        lambda buffer, x: jax.lax.dynamic_update_index_in_dim(
            buffer, x, number, 1
        ),
        buffers,
        parts,
    )
    return buffers, dropped + more

  forwards = tokens.shape[1]
  parts, dropped = jax.eval_shape(part, jnp.int32(0))
  buffers = jax.tree.map(
      lambda x: _spread(
          jnp.zeros((data, forwards, *x.shape[1:]), x.dtype), mesh
      ),
      parts,
  )
  start = buffers, jnp.zeros((), dropped.dtype)
  (activations, keep), dropped = jax.lax.fori_loop(0, forwards, write, start)
  return activations, keep, dropped


def square_sums(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    *,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> tuple[
    dict[lm.Tap, Float32[Array, ' sequences']], Int32[Array, ' sequences']
]:
  """Returns each sequence's sum of ||x||^2 over kept rows, and their number.

  The host adds the sequences' sums, so that the total depends neither on the
  number of devices nor on the number of sequences in one forward pass.
  """
  activations = forward(params, tokens)
  # No scale is known yet, and 0 accepts rows of any finite norm.
  any_scale = {tap: jnp.float32(0) for tap in activations}
  activations, keep, _ = dropped_rows.clean(
      activations, tokens, any_scale, user_prefix=user_prefix
  )
  sums = {
      tap: jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2))
      for tap, x in activations.items()
  }
  counts = jnp.sum(keep, axis=1, dtype=jnp.int32)
  return jax.tree.map(
      lambda x: sharding.constrain(x, mesh, None), (sums, counts)
  )


def _spread(x: Array, mesh: Mesh | None) -> Array:
  """Returns `x` with its first axis (sequences or shards) over `data`."""
  return sharding.constrain(x, mesh, 'sequences', *(None,) * (x.ndim - 1))
