"""Edits of a forward pass: changes of latents, and along directions.

An edit reads a coefficient f at a tap, which is a latent of an SAE or the
component of the activations along a direction. It changes the coefficient to
f', and adds (f' - f) times a row to the activations x. The row is the latent's
row of W_dec, or the direction. Everything else in x is kept, the error of the
SAE included, so an edit that changes no coefficient does not change x.

All edits at a tap read x before any edit at that tap, and their changes are
added. Edits of one latent by one SAE are applied in order. A transcoder reads
its input after the edits at the tap of the input. BOS, EOS and padding are not
edited, because SAEs are not trained on them.

Kinds, values and positions are arrays, so that other edits of as many latents
need no other program, and `vmap` over values runs many strengths at once.
"""

from collections.abc import Callable, Sequence
import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.saes import base


class Op(enum.StrEnum):
  """How an edit changes a coefficient f, with a value v.

  The order is that of the codes in `Arrays.ops`.
  """

  ADD = enum.auto()  # f + v
  SET = enum.auto()  # v
  SCALE = enum.auto()  # f v
  ABLATE = enum.auto()  # 0
  CAP = enum.auto()  # min(f, v)
  SET_IF_ACTIVE = enum.auto()  # v where f is not 0


OPS = tuple(Op)


class Target(NamedTuple):
  """The static part of the edits by one SAE, or along directions at one tap.

  Attributes:
    tap: The tap whose activations are changed.
    sae: The SAE; None for directions.
    reads: The taps of the SAE; None for directions.
  """

  tap: lm.Tap
  sae: base.Sae | None = None
  reads: lm.Reads | None = None


class Arrays(NamedTuple):
  """The arrays of the edits of a target.

  Attributes:
    params: The parameters of the SAE; for directions W_dec alone, which has
      them as rows.
    latents: The latent, or the number of the direction, of each edit.
    slots: The first edit of the same latent.
    ops: The index in `OPS` of each edit's kind.
    values: The value of each edit, in units of raw activations.
    starts: The first positions of the spans of tokens that are edited.
    stops: The positions after the spans; an empty span edits nothing.
  """

  params: Any
  latents: Int[Array | np.ndarray, ' edits']
  slots: Int[Array | np.ndarray, ' edits']
  ops: Int[Array | np.ndarray, ' edits']
  values: Float[Array | np.ndarray, ' edits']
  starts: Int[Array | np.ndarray, 'edits spans']
  stops: Int[Array | np.ndarray, 'edits spans']


def arrays(
    params: Any,
    latents: Sequence[int],
    ops: Sequence[str],
    values: Sequence[float],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> Arrays:
  """Returns the arrays of a target's edits.

  Args:
    params: The parameters of the SAE, or the directions as W_dec.
    latents: The latent, or the number of the direction, of each edit.
    ops: The kind of each edit.
    values: The value of each edit, in units of raw activations.
    spans: The spans (start, stop) of positions of each edit.
  """
  room = max(map(len, spans))
  padded = [[*pairs, *[(0, 0)] * (room - len(pairs))] for pairs in spans]
  starts, stops = np.moveaxis(np.array(padded, np.int32), -1, 0)
  return Arrays(
      params,
      np.array(latents, np.int32),
      np.array([latents.index(i) for i in latents], np.int32),
      np.array([OPS.index(Op(op)) for op in ops], np.int32),
      np.array(values, np.float32),
      starts,
      stops,
  )


# From activations to the change that is added to them.
Change = Callable[[Array], Float[Array, 'sequences positions d_site']]


def changes(
    targets: Sequence[Target],
    arrays: Sequence[Arrays],
    *,
    keep: Bool[Array | np.ndarray, 'sequences positions'],
    positions: Int[Array, 'sequences positions'],
) -> dict[lm.Tap, Change]:
  """Returns functions of the activations at each tap, for one forward pass.

  They are called inside one trace, in the order of the taps in the model. A tap
  that is only read has a function too, which returns zeros.

  Args:
    targets: The static parts of the edits.
    arrays: The arrays of each target.
    keep: The tokens that are edited.
    positions: The position of each token in its text.
  """
  by_tap: dict[lm.Tap, list[tuple[Target, Arrays]]] = {}
  for target, array in zip(targets, arrays, strict=True):
    reads = target.reads
    if reads is not None and reads.is_transcoder:
      by_tap.setdefault(reads.input, [])
    by_tap.setdefault(target.tap, []).append((target, array))
  seen: dict[lm.Tap, Array] = {}
  mask = keep[..., None]

  def change_at(tap):
    def change(x):
      x = x.astype(jnp.float32)
      total = jnp.zeros_like(x)
      for target, array in by_tap[tap]:
        reads = target.reads
        inputs = x
        if reads is not None and reads.is_transcoder:
          inputs = seen[reads.input]
        total += _change(
            target.sae, array, jnp.where(mask, inputs, 0), positions=positions
        )
      total = jnp.where(mask, total, 0)
      seen[tap] = x + total
      return total

    return change

  return {tap: change_at(tap) for tap in by_tap}


def add(x: Array, change: Float[Array, '*shape']) -> Array:
  """Returns the changed activations, in the dtype of `x`."""
  return (x.astype(jnp.float32) + change).astype(x.dtype)


def _change(sae, arrays, inputs, *, positions):
  """Returns (f' - f) times the rows, summed over the edits of a target."""
  rows = arrays.params['W_dec'][arrays.latents]
  if sae is None:
    along = jnp.matmul(inputs, rows.T, precision='highest')
    before = along / jnp.square(rows).sum(-1)[None, None]
  else:
    before = sae.encode(arrays.params, inputs)[..., arrays.latents]
  after = _edited(before, arrays, positions)
  return jnp.matmul(after - before, rows, precision='highest')


def _edited(before, arrays, positions):
  """Returns the coefficients after the edits, in order.

  Edits of one latent share the slot of the first; the slots of the others are
  not changed.
  """

  def step(current, edit):
    f = current[..., edit.slots]
    value = jnp.broadcast_to(edit.values, f.shape)
    after = jax.lax.select_n(
        edit.ops,
        f + value,
        value,
        f * value,
        jnp.zeros_like(f),
        jnp.minimum(f, value),
        jnp.where(f == 0, f, value),
    )
    at = positions[..., None]
    starts, stops = edit.starts[None, None], edit.stops[None, None]
    inside = ((at >= starts) & (at < stops)).any(-1)
    return current.at[..., edit.slots].set(jnp.where(inside, after, f)), None

  by_edit = arrays._replace(params=None)
  return jax.lax.scan(step, before, by_edit)[0]
