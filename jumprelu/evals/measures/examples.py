"""Passes over labelled rows: which latents tell a label, and their values.

Two passes: the first sums latents by class, on the device, whatever the width;
the second fetches the few that were chosen. In both a site's activations can
stand in the place of latents (`Unit.sae` is None).
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, metrics
from jumprelu.array_typing import Array, Bool, Float, Int, Num
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import labelled


class Unit(NamedTuple):
  """What has features: a member, or the activations at a tap."""

  sae: Any
  params: dict[str, jax.Array]
  source: lm.Tap


class ClassSums(NamedTuple):
  """Features summed over the examples of each class of each task."""

  count: Num[Array, 'tasks classes']
  total: Num[Array, 'tasks classes features']

  @classmethod
  def from_batch(
      cls,
      features: Float[Array, '*batch features'],
      labels: Int[Array, '*batch tasks'],
  ) -> 'ClassSums':
    """Sums examples that are labelled 0 or 1; others may hold anything."""
    x = features.reshape(-1, features.shape[-1])
    known = labels.reshape(-1, labels.shape[-1])
    x = jnp.where((known >= 0).any(-1)[:, None], x, 0)
    classes = jnp.stack([known == 0, known == 1], -1)
    total = jnp.einsum(
        'btc,bf->tcf', classes.astype(x.dtype), x, precision='highest'
    )
    return cls(classes.sum(0), total)

  def merge(self, other: 'ClassSums') -> 'ClassSums':
    """Returns the sums over both lots of examples."""
    return metrics.add(self, other)

  def difference(self) -> Float[np.ndarray, 'tasks features']:
    """Returns the mean of the positive class less that of the negative."""
    means = metrics.ratio(self.total, np.asarray(self.count)[..., None])
    return means[:, 1] - means[:, 0]


def _by_chunks(function, params, inputs, keep, *more, sae, mesh):
  """Maps over chunks of kept features, which of them are kept, and `more`."""

  def run(chunk):
    inputs, keep, *rest = chunk
    found = jitted.kept_rows(inputs, keep)
    if sae is not None:
      found = jitted.encode(sae, params, found, mesh=mesh)
    return function(found, keep, *rest)

  width = inputs.shape[-1] if sae is None else sae.width
  return jitted.by_chunks(run, width, inputs, keep, *more, mesh=mesh)


def _pooled(params, inputs, keep, *, sae, how, mesh):
  """Returns the mean or the maximum of a row's kept features."""

  def run(found, keep):
    if how == 'max':
      return jnp.where(keep[..., None], found, -jnp.inf).max(1)
    return jnp.where(keep[..., None], found, 0).sum(1)

  parts = _by_chunks(run, params, inputs, keep, sae=sae, mesh=mesh)
  some = keep.any(1)[:, None]
  if how == 'max':
    return jnp.where(some, parts.max(0), 0)
  return parts.sum(0) / jnp.maximum(keep.sum(1), 1)[:, None]


@functools.partial(jax.jit, static_argnames=('sae', 'how', 'mesh'))
def class_sums(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    labels: Int[Array, 'sequences examples tasks'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: Any,
    how: str | None = None,
    mesh: Any = None,
) -> ClassSums:
  """Sums one batch; with `how` (mean, max) an example is all of a row."""
  if how:
    found = _pooled(params, inputs, keep, sae=sae, how=how, mesh=mesh)
    known = jnp.where(keep.any(1)[:, None], labels[:, 0], -1)
    return jitted.replicate(ClassSums.from_batch(found, known), mesh)

  def run(found, keep, labels):
    known = jnp.where(keep[..., None], labels, -1)
    return ClassSums.from_batch(found, known)

  parts = _by_chunks(run, params, inputs, keep, labels, sae=sae, mesh=mesh)
  return jitted.replicate(jax.tree.map(lambda x: x.sum(0), parts), mesh)


@functools.partial(jax.jit, static_argnames=('sae', 'how', 'mesh'))
def gather(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    columns: Int[Array, ' columns'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: Any,
    how: str | None = None,
    mesh: Any = None,
) -> Float[Array, 'sequences examples columns']:
  """Returns some features of each example."""
  if how:
    found = _pooled(params, inputs, keep, sae=sae, how=how, mesh=mesh)
    return jitted.replicate(found[:, None, columns], mesh)

  def run(found, keep):
    return jitted.replicate(found[..., columns], mesh)

  parts = _by_chunks(run, params, inputs, keep, sae=sae, mesh=mesh)
  return jitted.replicate(jitted.join(parts), mesh)


def sums_of(
    context: context_lib.Context,
    units: Sequence[Unit],
    rows: labelled.Labelled,
    *,
    how: str | None,
) -> list[ClassSums]:
  """Returns each unit's sums over the examples of the training side."""
  text = text_lib.in_memory(rows.tokens, context.text)
  known = np.where(rows.test[:, None, None], np.int8(-1), rows.labels)
  labels = text_lib.beside(text, known, -1)

  def step(tokens):
    batch, known = context.forward(tokens), next(labels)
    return [
        class_sums(
            unit.params,
            batch.values[unit.source],
            known,
            keep=batch.keep,
            sae=unit.sae,
            how=how,
            mesh=text.mesh,
        )
        for unit in units
    ]

  return corpus_passes.merge_over(
      text, step, f'evaluate: probing {rows.name}, 1 of 2'
  )


def values_of(
    context: context_lib.Context,
    units: Sequence[Unit],
    rows: labelled.Labelled,
    columns: Sequence[np.ndarray],
    *,
    how: str | None,
) -> tuple[list[np.ndarray], Bool[np.ndarray, 'rows examples']]:
  """Returns some features of each unit by example, and which are kept."""
  text = text_lib.in_memory(rows.tokens, context.text)

  def step(tokens):
    batch = context.forward(tokens)
    found = [
        gather(
            unit.params,
            batch.values[unit.source],
            some,
            keep=batch.keep,
            sae=unit.sae,
            how=how,
            mesh=text.mesh,
        )
        for unit, some in zip(units, columns, strict=True)
    ]
    keep = batch.keep.any(1, keepdims=True) if how else batch.keep
    return found, jitted.replicate(keep, text.mesh)

  found, keep = zip(
      *text_lib.over(text, step, f'evaluate: probing {rows.name}, 2 of 2'),
      strict=True,
  )
  count = len(rows.tokens)
  features = [np.concatenate(p)[:count] for p in zip(*found, strict=True)]
  return features, np.concatenate(keep)[:count]
