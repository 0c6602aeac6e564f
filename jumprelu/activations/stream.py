"""The stream of activations: blocks computed by the language model.

The language model computes the activations of a block in several forward
passes. The rows of the block are then permuted with a key that depends on the
seed and the block's number, and split into batches. All batches of a block are
used before the next block is computed. No state is carried from block to block,
so the inputs of a run and a step's number determine the step's batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import copy
import dataclasses
import functools
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
import numpy as np

from jumprelu import errors, lm, sharding
from jumprelu.activations import blocks
from jumprelu.activations import scales as scales_lib
from jumprelu.array_typing import Array, Int
from jumprelu.data import packing, seeds
from jumprelu.files import fields


@dataclasses.dataclass(frozen=True)
class Config:
  """The sizes of blocks, batches and forward passes."""

  block_positions: int = fields.field(
      65536, 'positions of a block, which are shuffled together'
  )
  batch: int = fields.field(1024, 'positions of one optimiser step')
  logical_shards: int = fields.field(
      16,
      'parts of a block that are shuffled separately; changes the results, and'
      ' must be a multiple of the number of data-parallel devices',
  )
  lm_sequences: int = fields.field(
      32, 'sequences of one forward pass of the language model, on all devices'
  )
  batches_per_dispatch: int = fields.field(
      16,
      'optimiser steps of one compiled call; signals are handled between'
      ' calls',
  )
  scale_tokens: int = fields.field(
      65536, 'positions from which the scale of each tap is estimated'
  )
  center: bool = fields.field(
      False,
      'whether a scale is the distance from the mean, at which biases start',
  )
  max_norm: float = fields.field(
      0.0,
      'drop rows whose norm exceeds this multiple of the median norm; 0: keep'
      ' them',
  )

  def __post_init__(self):
    names = {field.name for field in dataclasses.fields(self)}
    counts = sorted(names - {'center', 'max_norm'})
    fields.check_counts(self, 'stream', *counts)
    if self.max_norm and not 1 < self.max_norm < math.inf:
      raise errors.UserError(
          f'stream.max_norm={self.max_norm}: must be 0 or above 1'
      )
    fields.check_multiple(
        'stream.batch', self.batch, 'stream.logical_shards', self.logical_shards
    )
    fields.check_multiple(
        'stream.block_positions',
        self.block_positions,
        'stream.batch',
        self.batch,
    )

  @property
  def batches(self) -> int:
    """The number of batches of a block."""
    return self.block_positions // self.batch

  def sequences(self, sequence_length: int) -> int:
    """Returns the number of sequences of a block.

    Raises:
      UserError: the sizes do not fit the sequence length.
    """
    fields.check_multiple(
        'stream.block_positions',
        self.block_positions,
        'the sequence length',
        sequence_length,
    )
    sequences = self.block_positions // sequence_length
    for name in ('logical_shards', 'lm_sequences'):
      divisor = getattr(self, name)
      if sequences % divisor:
        raise errors.UserError(
            f'stream.{name}={divisor} does not divide the {sequences} sequences'
            f' of a block (stream.block_positions={self.block_positions} /'
            f' sequence length {sequence_length}); nearest:'
            f' {_nearest_divisors(sequences, divisor)}'
        )
    return sequences

  def check_data_axis(self, size: int) -> None:
    """Raises UserError unless a data axis divides shards and forward passes.

    It must divide both `logical_shards` and `lm_sequences`.

    Args:
      size: The size of the data axis.
    """
    for name in ('logical_shards', 'lm_sequences'):
      fields.check_multiple(
          f'stream.{name}', getattr(self, name), 'the data axis', size
      )


@runtime_checkable
class Loader(Protocol):
  """The source of token ids (`data.Loader`)."""

  def block(
      self, block_index: int, sequences: int, *, rows: slice
  ) -> Int[np.ndarray, 'sequences positions']:
    """Returns the sequences `rows` of a block.

    Args:
      block_index: The number of the block.
      sequences: The number of sequences of each block.
      rows: The sequences to return.
    """
    ...


def block_program(
    config: Config,
    forward: blocks.Forward,
    *,
    user_prefix: tuple[int, ...] = (),
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Any:
  """Returns the jitted function that computes a block.

  Its arguments are the parameters of the language model, the token ids, the
  number of the block, and the taps' inverse scales.
  """
  return jax.jit(
      functools.partial(
          blocks.make_block,
          forward,
          lm_sequences=config.lm_sequences,
          shards=config.logical_shards,
          seed=seed,
          user_prefix=user_prefix,
          mesh=mesh,
      )
  )


class Stream:
  """A `blocks.Source` that computes blocks with the language model.

  A block does not depend on the blocks that were computed before it.
  """

  def __init__(
      self,
      config: Config,
      forward: blocks.Forward,
      *,
      params: Any,
      loader: Loader,
      sequence_length: int,
      seed: int = 0,
      user_prefix: tuple[int, ...] = (),
      mesh: Mesh | None = None,
  ):
    self.config = config
    self.params = params
    self.loader = loader
    self._length = sequence_length
    self._mesh = mesh
    self._sequences = config.sequences(sequence_length)
    if mesh is not None:
      config.check_data_axis(mesh.shape['data'])
    self._seed = seed
    self._make_program = functools.partial(
        block_program, config, forward, user_prefix=user_prefix, mesh=mesh
    )
    self._block = self._make_program(seed=seed)

    def on_tokens(program):
      return jax.jit(
          functools.partial(
              program, forward, user_prefix=user_prefix, mesh=mesh
          )
      )

    self._on_tokens = on_tokens

  def make_block(self, index: int, scales: scales_lib.Scales) -> blocks.Block:
    """Returns block `index`, computed by the language model and shuffled."""
    inverse = {tap: 1 / scale for tap, scale in scales.items()}
    return self._block(
        self.params,
        self._tokens(index, self._sequences),
        self.put(index),
        jax.tree.map(self.put, inverse),
        self._put_limits(scales.limits),
    )

  def reseeded(self, count: int) -> 'Stream':
    """Returns a stream with other blocks, for each count from 1.

    The loader must have a method `reseeded`, as `data.Loader` does.
    """
    stream, loader = copy.copy(self), self.loader
    stream.loader = loader.reseeded(count)  # pyright: ignore
    seed = seeds.folded(self._seed, count)
    stream._block = self._make_program(seed=seed)
    return stream

  def estimate_scales(self) -> scales_lib.Scales:
    """Returns the scales of the taps over the first `scale_tokens`.

    The number of tokens is rounded up to whole sequences. Surplus sequences of
    the last forward pass are left out, so that `lm_sequences` cannot change the
    result.

    Raises:
      DataError: the mean square at a tap is zero or non-finite.
    """
    limits = self._estimate_limits() if self.config.max_norm else {}
    center = self.config.center
    program = blocks.moment_sums if center else blocks.square_sums
    parts: dict[lm.Tap, list[float]] = {}
    totals: dict[lm.Tap, list[np.ndarray]] = {}
    rows = 0
    for sums, counts, *means in self._first(program, self._put_limits(limits)):
      rows += int(counts.sum())
      for tap, values in sums.items():
        parts.setdefault(tap, []).extend(values.tolist())
        if center:
          totals.setdefault(tap, []).append(means[0][tap])
    # `fsum` rounds once, so the order of the values does not matter.
    squares = {tap: math.fsum(values) for tap, values in parts.items()}
    for tap, value in squares.items():
      if not value > 0 or not np.isfinite(value):
        raise errors.DataError(
            f'the activations at {tap} have mean square {value / max(rows, 1)}'
            f' over {rows} kept positions; check the weights and the data for'
            ' damage'
        )
    squares = {tap: value / rows for tap, value in squares.items()}
    if not center:
      values = {tap: value**0.5 for tap, value in squares.items()}
      return scales_lib.Scales(values, limits)
    centers = {
        tap: np.concatenate(x).sum(0, dtype=np.float64) / rows
        for tap, x in totals.items()
    }
    return scales_lib.centered(squares, centers, limits)

  def _estimate_limits(self) -> dict[lm.Tap, float]:
    """Returns `max_norm` times the median norm of each tap."""
    parts: dict[lm.Tap, list[np.ndarray]] = {}
    for norms in self._first(blocks.norms):
      for tap, x in norms.items():
        parts.setdefault(tap, []).append(x[x > 0])
    return {
        tap: self.config.max_norm * float(np.median(np.concatenate(x)))
        for tap, x in parts.items()
    }

  def _first(self, program: Callable[..., Any], *arguments: Any) -> Iterator:
    """Yields a program's results on the first `scale_tokens`, on the host."""
    run = self._on_tokens(program)
    at_once = self.config.lm_sequences
    sequences = -(-self.config.scale_tokens // self._length)
    for index in range(-(-sequences // at_once)):
      results = run(self.params, self._tokens(index, at_once), *arguments)
      counted = sequences - index * at_once
      yield jax.tree.map(lambda x, n=counted: x[:n], jax.device_get(results))

  def _put_limits(self, limits: Mapping[lm.Tap, float]) -> dict[lm.Tap, Array]:
    return {tap: self.put(float(limit)) for tap, limit in limits.items()}

  def put(self, value: int | float) -> Array:
    """Puts an int (as int32) or a float (as float32) on every device."""
    return put(value, self._mesh)

  def _tokens(self, index: int, sequences: int) -> Array:
    """Returns the token ids of a block on the devices.

    Each process loads only the sequences of its own devices.
    """
    if self._mesh is None:
      return jax.device_put(
          self.loader.block(index, sequences, rows=slice(0, sequences))
      )
    load = functools.cache(
        lambda start, stop: self.loader.block(
            index, sequences, rows=slice(start, stop)
        )
    )
    return place(
        (sequences, self._length),
        lambda index: load(*index[0].indices(sequences)[:2])[:, index[1]],
        sharding.named(self._mesh, 'sequences', None),
    )


def put(value: int | float, mesh: Mesh | None = None) -> Array:
  """Puts an int (as int32) or a float (as float32) on every device."""
  number = np.asarray(value, np.int32 if isinstance(value, int) else np.float32)
  if mesh is None:
    return jax.device_put(number)
  return place((), lambda _: number, sharding.replicated(mesh))


def place(
    shape: tuple[int, ...],
    load: Callable[[Any], np.ndarray],
    layout: NamedSharding,
) -> Array:
  """Returns an array on the devices of a sharding.

  Args:
    shape: The shape of the whole array.
    load: Maps the index of a shard (a tuple of slices) to its values.
    layout: The sharding.
  """
  # The training loop disallows transfers that are not explicit.
  with jax.transfer_guard_host_to_device('allow'):
    return jax.make_array_from_callback(shape, layout, load)


def lm_forward(
    model: lm.LanguageModel,
    taps: Sequence[lm.Tap],
    *,
    input_gain: bool = True,
    mesh: Mesh | None = None,
) -> blocks.Forward:
  """Returns the forward pass of a stream, which stops after the highest tap.

  Args:
    model: The language model.
    taps: The taps to read.
    input_gain: Whether activations at `Site.MLP_IN` include the gain of the
      norm before the MLP. Otherwise they are divided by it.
    mesh: The devices; None for one device.
  """

  def forward(params, tokens):
    values = lm.activations(
        model,
        params,
        tokens,
        positions=jnp.asarray(packing.positions(tokens)),
        segments=jnp.asarray(packing.segments(tokens)),
        taps=tuple(taps),
        mesh=mesh,
    )
    return {
        tap: _without_gain(values[tap], params, tap.layer)
        if tap.site is lm.Site.MLP_IN and not input_gain
        else values[tap]
        for tap in taps
    }

  return forward


def _without_gain(x: Array, params: Any, layer: int) -> Array:
  return x / lm.input_gain(params, layer)[None, None, :]


def _nearest_divisors(n: int, near: int) -> str:
  divisors = [k for k in range(1, n + 1) if n % k == 0]
  below = max((k for k in divisors if k <= near), default=None)
  above = min((k for k in divisors if k >= near), default=None)
  return ' or '.join(str(k) for k in (below, above) if k is not None)
