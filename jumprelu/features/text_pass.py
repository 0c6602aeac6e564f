"""The pass over text: the firings of all members, written in segments.

One forward pass per batch serves all members. A narrow member's latents leave
the device whole, because the host selects the active ones faster. A wide
member's active latents are selected on the device (`active`): the largest
`bound` of each token, where `bound` is doubled, and the batch repeated, if a
token has more. The host sorts a batch's firings while the device runs the next.
"""

from collections.abc import Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jumprelu import processes
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.data import packing
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals import text as text_lib
from jumprelu.features import segments, statistics
from jumprelu.saes import base

# The numbers of firings of all members, and of positions, after which a segment
# ends.
SEGMENT_FIRINGS = 1 << 23
SEGMENT_POSITIONS = 1 << 20
# The largest array of a member's latents that leaves the device whole, in
# bytes.
DENSE_BYTES = 1 << 26
# The first bound on active latents per token of wide members.
FIRST_BOUND = 256


class Active(NamedTuple):
  """The latents of largest magnitude at each position; the others are 0.

  `latents` is None if `values` has all latents.
  """

  latents: Int[Array, 'sequences positions bound'] | None
  values: Float[Array, 'sequences positions bound']
  largest_count: Int[Array, '']  # Of active latents at a position.


@functools.partial(jax.jit, static_argnames=('sae', 'bound', 'mesh'))
def active(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    keep: Bool[Array, 'sequences positions'],
    *,
    sae: base.Sae,
    bound: int,
    mesh: Any = None,
) -> Active:
  """Returns at most `bound` active latents of each kept position."""

  def run(chunk):
    inputs, keep = chunk
    rows = jitted.kept_rows(inputs, keep)
    latents = jitted.encode(sae, params, rows, mesh=mesh)
    latents = jnp.where(keep[..., None], latents, 0)
    counts = (latents != 0).sum(-1, dtype=jnp.int32)
    if bound == sae.width:
      return None, latents, counts
    # XLA's fast selection is for matrices.
    flat = latents.reshape(-1, sae.width)
    _, ids = lax.top_k(jnp.abs(flat), bound)
    values = jnp.take_along_axis(flat, ids, axis=-1)
    shape = *keep.shape, bound
    return ids.reshape(shape), values.reshape(shape), counts

  parts = jitted.by_chunks(run, sae.width, inputs, keep, mesh=mesh)
  latents, values, counts = jitted.join(parts)
  return jitted.replicate(Active(latents, values, counts.max()), mesh)


@functools.partial(jax.jit, static_argnames='mesh')
def replicated(tree: Any, *, mesh: Any) -> Any:
  """Returns arrays that every process can read (`jitted.replicate`)."""
  return jitted.replicate(tree, mesh)


def run(
    forward: corpus_passes.Forward,
    members: Sequence[corpus_passes.Placed],
    *,
    text: text_lib.Text,
    folder: pathlib.Path,
) -> None:
  """Writes the firings of all members on a text to segments in a folder.

  Complete segments of an earlier call are kept.

  Args:
    forward: The clean forward pass.
    members: The members.
    text: The text.
    folder: The folder of the segments; only process 0 writes.
  """
  done, number = _done(folder)
  rest = text._replace(rows=text.rows[done:])
  step = _Step(forward, members, text)
  pending = _Pending(folder, number, [member.sae.width for member in members])
  results = text_lib.over(rest, step, 'features: activations')
  for i, result in enumerate(results):
    start = i * text.sequences
    part = rest._replace(rows=rest.rows[start : start + text.sequences])
    while not step.is_complete(result):
      result = jax.device_get(step(next(text_lib.batches(part))))
    pending.add(part, *result)
    if pending.is_full:
      pending.flush()
  pending.flush()


def _done(folder: pathlib.Path) -> tuple[int, int]:
  """Returns the numbers of rows and segments that process 0 has written."""
  complete = segments.find(folder) if processes.is_main() else []
  rows = sum(len(segments.read(path).rows) for path in complete)
  rows, count = processes.from_main([rows, len(complete)])
  return rows, count


class _Step:
  """A step of the pass, which remembers the bounds that members need."""

  def __init__(
      self,
      forward: corpus_passes.Forward,
      members: Sequence[corpus_passes.Placed],
      text: text_lib.Text,
  ):
    self._forward = forward
    self._members = members
    self._mesh = text.mesh
    positions = text.sequences * text.cache.sequence_length
    self._bounds = [
        width
        if 4 * positions * width <= DENSE_BYTES
        else min(FIRST_BOUND, width)
        for width in (member.sae.width for member in members)
    ]

  def __call__(self, tokens: jax.Array) -> tuple[Any, list[Active]]:
    """Returns the kept positions and the active latents of each member."""
    batch = self._forward(tokens)
    keep = replicated(batch.keep, mesh=self._mesh)
    return keep, [
        active(
            member.params,
            batch.at(member.reads.inputs),
            batch.keep,
            sae=member.sae,
            bound=bound,
            mesh=self._mesh,
        )
        for member, bound in zip(self._members, self._bounds, strict=True)
    ]

  def is_complete(self, result: tuple[Any, list[Active]]) -> bool:
    """Returns whether no token has more active latents than its bound.

    Otherwise the bounds are doubled until they suffice.
    """
    complete = True
    for i, part in enumerate(result[1]):
      complete &= bool(part.largest_count <= part.values.shape[-1])
      while self._bounds[i] < part.largest_count:
        self._bounds[i] = min(2 * self._bounds[i], self._members[i].sae.width)
    return complete


class _Pending:
  """The rows and firings of the segment that is not yet written."""

  def __init__(self, folder: pathlib.Path, number: int, widths: list[int]):
    self._folder = folder
    self._number = number
    self._widths = widths
    self._empty()

  @property
  def is_full(self) -> bool:
    """Whether the segment has enough firings or positions."""
    positions = sum(keep.size for keep in self._keep)
    return self._firings >= SEGMENT_FIRINGS or positions >= SEGMENT_POSITIONS

  def _empty(self) -> None:
    self._firings = 0
    self._texts: list[text_lib.Text] = []
    self._keep: list[np.ndarray] = []
    self._parts: list[list[_Part]] = [[] for _ in self._widths]

  def add(
      self, text: text_lib.Text, keep: np.ndarray, latents: Sequence[Active]
  ) -> None:
    """Adds the rows of one batch."""
    rows = len(text.rows)
    self._texts.append(text)
    self._keep.append(keep[:rows])
    for i, part in enumerate(latents):
      firings = _firings(part, rows)
      self._parts[i].append(firings)
      self._firings += len(firings.values)

  def flush(self) -> None:
    """Writes the segment, if it has any row."""
    if not self._texts:
      return
    rows = np.concatenate([text.rows for text in self._texts])
    text = self._texts[0]._replace(rows=rows)
    if processes.is_main():
      tokens = text.cache.tokens_at(rows)
      segment = segments.Segment(
          segments.folder_of(self._folder, self._number),
          rows,
          tokens,
          text_lib.document_starts(text),
          np.concatenate(self._keep),
          statistics.position_bin(np.asarray(packing.positions(tokens))),
      )
      members = zip(self._parts, self._widths, strict=True)
      segments.write(segment, (_sorted(*member) for member in members))
    self._number += 1
    self._empty()


class _Part(NamedTuple):
  """The firings of one batch, by position."""

  counts: Int[np.ndarray, ' positions']
  latents: Int[np.ndarray, ' firings']
  values: Float[np.ndarray, ' firings']


def _firings(part: Active, rows: int) -> _Part:
  """Returns the firings of the first rows."""
  values = np.asarray(part.values)[:rows]
  flat = values.reshape(-1, values.shape[-1])
  fires = flat != 0
  counts = np.count_nonzero(fires, axis=1)
  # NumPy is several times faster on flat arrays of bool.
  index = np.flatnonzero(fires)
  values = flat.reshape(-1)[index]
  if part.latents is None:
    starts = np.arange(0, flat.size, flat.shape[1])
    latents = index - np.repeat(starts, counts)
  else:
    latents = np.asarray(part.latents)[:rows].reshape(-1)[index]
  return _Part(counts, latents.astype(np.int32), values.astype(np.float32))


def _sorted(
    parts: list[_Part], width: int
) -> tuple[segments.Firings, segments.Active]:
  """Returns the firings of consecutive batches, by latent and by position."""
  counts, latents, values = (
      np.concatenate(fields) for fields in zip(*parts, strict=True)
  )
  starts = np.append(0, np.cumsum(counts)).astype(np.int32)
  rows = sparse.csr_array((values, latents, starts), (len(counts), width))
  columns = rows.tocsc()
  return (
      segments.Firings(
          columns.indptr.astype(np.int64),
          columns.indices.astype(np.int32),
          columns.data,
      ),
      segments.Active(starts, latents),
  )
