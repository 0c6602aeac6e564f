"""Blocks of activations on the device: clean, shuffle, cut into batches.

The permutation is defined on a fixed number of logical shards, which lie over
the `data` axis: a batch takes the same rows whatever the number of devices,
and shuffling moves nothing between them.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jumprelu import lm, sharding
from jumprelu.activations import dropped_rows
from jumprelu.array_typing import Array, Bool, Float, Float32, Int, Int32

# (parameters of the language model, tokens) -> the activations at each tap.
# Row-wise: a sequence's activations do not depend on its neighbours.
Forward = Callable[[Any, Array], Mapping[lm.Tap, Array]]


# An array; in trees of shapes and of shardings whatever stands for it.
Leaf = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
  """One block on the device, in `shards` logical shards of `slots` rows."""

  # {tap: [shards, slots, d_site]}, as the model gave them; dropped rows are 0.
  activations: dict[lm.Tap, Leaf]
  # {tap: []}: one over the scale of the tap.
  inverse_scale: dict[lm.Tap, Leaf]
  # [shards, slots]: the rows that count.
  keep: Leaf
  # [shards, slots]: a permutation of each shard's slots.
  order: Leaf
  # []: rows of text that were dropped because they are non-finite or absurd.
  dropped: Leaf


@runtime_checkable
class Source(Protocol):
  """Where a run's blocks come from: a model's stream, or a store."""

  def make_block(self, index: int, scales: Mapping[lm.Tap, float]) -> Block:
    """Returns block `index`, whose taps have these scales."""
    ...

  def estimate_scales(self) -> dict[lm.Tap, float]:
    """Returns sqrt(E||x||^2) of each tap."""
    ...

  def put(self, value: int | float) -> Array:
    """Puts a number on every device, explicitly; int32 or float32."""
    ...


def rows(
    block: Block, index: Int[Array, ''], size: int
) -> tuple[dict[lm.Tap, Float[Array, 'batch _']], Bool[Array, ' batch']]:
  """Gathers the rows of batch `index` as they are stored, and their mask.

  Takes the next size / shards slots of *every* shard, in shard order: each
  batch draws evenly from all of the block, and nothing leaves its device.
  """
  each = size // block.order.shape[0]
  slots = jax.lax.dynamic_slice_in_dim(block.order, index * each, each, axis=1)
  take = jax.vmap(lambda rows, slots: rows[slots])
  found = {
      tap: take(stored, slots).reshape(size, -1)
      for tap, stored in block.activations.items()
  }
  return found, take(block.keep, slots).reshape(size)


def scaled(
    x: Float[Array, 'batch _'], inverse_scale: Float[Array, '']
) -> Float32[Array, 'batch _']:
  """Brings stored rows to float32 and to E||x||^2 = 1."""
  return x.astype(jnp.float32) * inverse_scale


def concatenated(
    activations: Mapping[lm.Tap, Float[Array, 'batch _']],
    taps: tuple[lm.Tap, ...],
) -> Float[Array, 'batch _']:
  """Returns the activations at `taps` side by side; a single one as it is."""
  parts = [activations[tap] for tap in taps]
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def make_order(
    seed: int, index: Int[Array, ''], *, shards: int, slots: int
) -> Int32[Array, 'shards slots']:
  """The order of a block: a permutation a shard, from counters alone."""
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
    mesh: Any = None,
) -> Block:
  """Forwards, cleans and shuffles block `index`."""
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
    mesh: Any = None,
) -> tuple[dict[lm.Tap, Float[Array, '...']], Bool[Array, '...'], Array]:
  """Forwards and cleans `lm_sequences` at a time, without leaving the device.

  Rows are written where they stay: every device forwards its own sequences
  into its own part of the buffers, [data, forwards, each, positions, d].
  """
  data = mesh.shape['data'] if mesh is not None else 1
  each, length = lm_sequences // data, tokens.shape[1]
  tokens = tokens.reshape(data, -1, each, length)

  def part(number):
    rows = jax.lax.dynamic_index_in_dim(tokens, number, 1, keepdims=False)
    rows = _spread(rows.reshape(lm_sequences, length), mesh)
    # Or weights that are cut over `data` would be gathered before the loop, all
    # layers at once.
    weights, rows = jax.lax.optimization_barrier((params, rows))
    *found, dropped = dropped_rows.clean(
        forward(weights, rows), rows, inverse_scale, user_prefix=user_prefix
    )
    parts = jax.tree.map(
        lambda x: _spread(x, mesh).reshape(data, each, *x.shape[1:]), found
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
    mesh: Any = None,
) -> tuple[
    dict[lm.Tap, Float32[Array, ' sequences']], Int32[Array, ' sequences']
]:
  """Returns each sequence's sum of ||x||^2 over kept rows, and their number.

  A number a sequence: the host adds them up, so that the sum does not depend
  on the number of devices, nor on how many sequences are forwarded together.
  """
  found = forward(params, tokens)
  anything = {tap: jnp.float32(0) for tap in found}
  found, keep, _ = dropped_rows.clean(
      found, tokens, anything, user_prefix=user_prefix
  )
  sums = {
      tap: jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2))
      for tap, x in found.items()
  }
  counts = jnp.sum(keep, axis=1, dtype=jnp.int32)
  return jax.tree.map(
      lambda x: sharding.constrain(x, mesh, None), (sums, counts)
  )


def _spread(x: Array, mesh: Any) -> Array:
  """Lays the first axis (sequences or shards) over `data`."""
  return sharding.constrain(x, mesh, 'sequences', *(None,) * (x.ndim - 1))
