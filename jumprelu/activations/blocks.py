"""Blocks of activations on the devices: cleaned, shuffled, split into batches.

A block has a fixed number of logical shards, each with its own permutation. The
logical shards are sharded over the `data` axis of the mesh. A batch therefore
holds the same rows on any number of devices, and shuffling moves no rows
between devices.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import types
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jumprelu import lm, sharding
from jumprelu.activations import dropped_rows
from jumprelu.activations import scales as scales_lib
from jumprelu.array_typing import Array, Bool, Float, Float32, Int, Int32

# Maps the parameters of the language model and token ids to the activations at
# each tap. The activations of a sequence do not depend on other sequences.
Forward = Callable[[Any, Array], Mapping[lm.Tap, Array]]

# An array, or a ShapeDtypeStruct or Sharding in a tree of shapes or shardings.
Leaf = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
  """One block on the devices: `shards` logical shards of `slots` rows each."""

  # {tap: [shards, slots, d_site]}: unscaled; dropped rows are 0.
  activations: dict[lm.Tap, Leaf]
  # {tap: []}: 1 / scale of the tap.
  inverse_scale: dict[lm.Tap, Leaf]
  # [shards, slots]: True for kept rows.
  keep: Leaf
  # [shards, slots]: the slots of each shard in the order of training.
  order: Leaf
  # []: the number of text rows that are dropped because they are non-finite or
  # exceed 1e3 times the scale.
  dropped: Leaf


@runtime_checkable
class Source(Protocol):
  """A source of a run's blocks: a language model's stream, or a store."""

  def make_block(self, index: int, scales: scales_lib.Scales) -> Block:
    """Returns block `index`, with the inverses of `scales`."""
    ...

  def estimate_scales(self) -> scales_lib.Scales:
    """Returns the scale of each tap."""
    ...

  def put(self, value: int | float) -> Array:
    """Puts an int (as int32) or a float (as float32) on every device."""
    ...


def rows(
    block: Block, index: Int[Array, ''], size: int
) -> tuple[dict[lm.Tap, Float[Array, 'batch _']], Bool[Array, ' batch']]:
  """Returns the unscaled rows of batch `index`, and their keep mask.

  A batch has the next `size` / shards rows of every shard, in the order of the
  shards. It therefore samples the whole block evenly, and no row leaves its
  device.

  Args:
    block: The block.
    index: The number of the batch in the block.
    size: The number of rows of a batch.
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
  """Returns a permutation of the slots of each shard.

  The permutations depend only on the seed, the block's index and the sizes.
  """
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
    limits: dict[lm.Tap, Array],
    *,
    lm_sequences: int,
    shards: int,
    seed: int,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> Block:
  """Returns block `index` after forward passes, cleaning and shuffling.

  Args:
    forward: The forward pass of the language model.
    params: The parameters of the language model.
    tokens: The token ids of the block.
    index: The number of the block.
    inverse_scale: 1 / scale of each tap.
    limits: The largest norms of kept rows, at the taps that have one.
    lm_sequences: The number of sequences in one forward pass.
    shards: The number of logical shards.
    seed: The seed of the permutations.
    user_prefix: Token ids after a BOS whose rows are dropped.
    mesh: The devices; None for one device.
  """
  activations, keep, dropped = forward_all(
      forward,
      params,
      tokens,
      inverse_scale,
      limits,
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
    limits: dict[lm.Tap, Array],
    *,
    lm_sequences: int,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> tuple[dict[lm.Tap, Float[Array, '...']], Bool[Array, '...'], Array]:
  """Returns cleaned activations, the keep mask and the number of dropped rows.

  Only text rows are counted (`dropped_rows.clean`). A forward pass has
  `lm_sequences` sequences. Each device writes the rows of its own sequences to
  its own shard of the results, whose shape is [data, forward passes, sequences
  per device, positions, d_site]. The arguments are those of `make_block`.
  """
  data = mesh.shape['data'] if mesh is not None else 1
  options = {'limits': limits, 'user_prefix': user_prefix}
  per_device, length = lm_sequences // data, tokens.shape[1]
  tokens = tokens.reshape(data, -1, per_device, length)

  def part(number):
    rows = jax.lax.dynamic_index_in_dim(tokens, number, 1, keepdims=False)
    rows = _spread(rows.reshape(lm_sequences, length), mesh)
    # If weights are sharded over `data`, XLA would gather those of all layers
    # before the loop without this barrier, and hold them in memory.
    weights, rows = jax.lax.optimization_barrier((params, rows))
    *cleaned, dropped = dropped_rows.clean(
        forward(weights, rows), rows, inverse_scale, **options
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

  parts, dropped = jax.eval_shape(part, jnp.int32(0))
  forwards = tokens.shape[1]

  def empty(x):
    return _spread(jnp.zeros((data, forwards, *x.shape[1:]), x.dtype), mesh)

  buffers = jax.tree.map(empty, parts)
  start = buffers, jnp.zeros((), dropped.dtype)
  (activations, keep), dropped = jax.lax.fori_loop(0, forwards, write, start)
  return activations, keep, dropped


def moment_sums(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    limits: Mapping[lm.Tap, Array] = types.MappingProxyType({}),
    *,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> tuple[
    dict[lm.Tap, Float32[Array, ' sequences']],
    Int32[Array, ' sequences'],
    dict[lm.Tap, Float32[Array, 'sequences d_site']],
]:
  """Returns each sequence's sum of ||x||^2, number and sum of kept rows x.

  The host adds the sums of all sequences, so that the total depends neither on
  the number of devices nor on the number of sequences in one forward pass.
  """
  activations, counts = _kept(forward, params, tokens, limits, user_prefix)
  squares = {
      tap: jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2))
      for tap, x in activations.items()
  }
  totals = {
      tap: sharding.constrain(
          jnp.sum(x.astype(jnp.float32), axis=1), mesh, None, None
      )
      for tap, x in activations.items()
  }
  squares, counts = jax.tree.map(
      lambda x: sharding.constrain(x, mesh, None), (squares, counts.sum(1))
  )
  return squares, counts, totals


def square_sums(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
  """Returns the first two results of `moment_sums`, without the third's cost."""
  squares, counts, _ = moment_sums(*args, **kwargs)
  return squares, counts


def norms(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    *,
    user_prefix: tuple[int, ...] = (),
    mesh: Mesh | None = None,
) -> dict[lm.Tap, Float32[Array, 'sequences positions']]:
  """Returns the norm of each row; 0 for dropped rows."""
  activations, _ = _kept(forward, params, tokens, {}, user_prefix)
  return {
      tap: sharding.constrain(
          jnp.linalg.norm(x.astype(jnp.float32), axis=-1), mesh, None, None
      )
      for tap, x in activations.items()
  }


def _kept(
    forward: Forward,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    limits: Mapping[lm.Tap, Array],
    user_prefix: tuple[int, ...],
) -> tuple[dict[lm.Tap, Array], Int32[Array, 'sequences positions']]:
  """Returns activations with dropped rows zeroed, and 1 for each kept row."""
  activations = forward(params, tokens)
  # No scale is known yet. An inverse scale of 0 accepts every finite norm.
  any_scale = {tap: jnp.float32(0) for tap in activations}
  activations, keep, _ = dropped_rows.clean(
      activations, tokens, any_scale, limits=limits, user_prefix=user_prefix
  )
  return activations, keep.astype(jnp.int32)


def _spread(x: Array, mesh: Mesh | None) -> Array:
  """Returns `x` with its first axis (sequences or shards) split over `data`."""
  return sharding.constrain(x, mesh, 'sequences', *(None,) * (x.ndim - 1))
