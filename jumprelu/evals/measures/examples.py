"""Passes over labelled rows: sums of features by class, and feature values.

The first pass sums features by class on the device, so host memory does not
grow with the number of examples. The second pass fetches only the chosen
features. In both passes, the features are a member's latents or, if `Unit.sae`
is None, the channels of a site's activations.

An example is a token or, with `pooling` ('mean' or 'max'), a row, whose
features are pooled over its kept tokens. A task is to predict whether an
example has a property (class 1) or lacks it (class 0).
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
from jumprelu.saes import base


class Unit(NamedTuple):
  """A source of features: a member, or the activations at a tap."""

  sae: base.Sae | None
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
    """Returns sums over examples labelled 0 or 1.

    Features of other examples have no effect, even if they are not finite.
    """
    x = features.reshape(-1, features.shape[-1])
    known = labels.reshape(-1, labels.shape[-1])
    x = jnp.where((known >= 0).any(-1)[:, None], x, 0)
    classes = jnp.stack([known == 0, known == 1], -1)
    total = jnp.einsum(
        'btc,bf->tcf', classes.astype(x.dtype), x, precision='highest'
    )
    return cls(classes.sum(0), total)

  def merge(self, other: 'ClassSums') -> 'ClassSums':
    """Returns the sums over the examples of both records."""
    return metrics.add(self, other)

  def difference(self) -> Float[np.ndarray, 'tasks features']:
    """Returns each feature's mean in class 1 minus its mean in class 0."""
    means = metrics.ratio(self.total, np.asarray(self.count)[..., None])
    return means[:, 1] - means[:, 0]


def _by_chunks(function, params, inputs, keep, *more, sae, mesh):
  """Returns the stacked results of `function` for chunks of positions.

  Its arguments are a chunk's features, their keep mask, and chunks of `more`.
  """

  def run(chunk):
    inputs, keep, *rest = chunk
    features = jitted.kept_rows(inputs, keep)
    if sae is not None:
      features = jitted.encode(sae, params, features, mesh=mesh)
    return function(features, keep, *rest)

  width = inputs.shape[-1] if sae is None else sae.width
  return jitted.by_chunks(run, width, inputs, keep, *more, mesh=mesh)


def _pooled(params, inputs, keep, *, sae, pooling, mesh):
  """Returns the mean or maximum of each row's kept features, 0 without any."""

  def run(features, keep):
    if pooling == 'max':
      return jnp.where(keep[..., None], features, -jnp.inf).max(1)
    return jnp.where(keep[..., None], features, 0).sum(1)

  parts = _by_chunks(run, params, inputs, keep, sae=sae, mesh=mesh)
  not_empty = keep.any(1)[:, None]
  if pooling == 'max':
    return jnp.where(not_empty, parts.max(0), 0)
  return parts.sum(0) / jnp.maximum(keep.sum(1), 1)[:, None]


@functools.partial(jax.jit, static_argnames=('sae', 'pooling', 'mesh'))
def class_sums(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    labels: Int[Array, 'sequences examples tasks'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: base.Sae | None,
    pooling: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> ClassSums:
  """Returns one batch's sums over the kept examples labelled 0 or 1."""
  if pooling:
    features = _pooled(
        params, inputs, keep, sae=sae, pooling=pooling, mesh=mesh
    )
    known = jnp.where(keep.any(1)[:, None], labels[:, 0], -1)
    return jitted.replicate(ClassSums.from_batch(features, known), mesh)

  def run(features, keep, labels):
    known = jnp.where(keep[..., None], labels, -1)
    return ClassSums.from_batch(features, known)

  parts = _by_chunks(run, params, inputs, keep, labels, sae=sae, mesh=mesh)
  return jitted.replicate(jax.tree.map(lambda x: x.sum(0), parts), mesh)


@functools.partial(jax.jit, static_argnames=('sae', 'pooling', 'mesh'))
def gather(
    params: Any,
    inputs: Float[Array, 'sequences positions model'],
    columns: Int[Array, ' columns'],
    *,
    keep: Bool[Array, 'sequences positions'],
    sae: base.Sae | None,
    pooling: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences examples columns']:
  """Returns the features `columns` of each example."""
  if pooling:
    features = _pooled(
        params, inputs, keep, sae=sae, pooling=pooling, mesh=mesh
    )
    return jitted.replicate(features[:, None, columns], mesh)

  def run(features, keep):
    return jitted.replicate(features[..., columns], mesh)

  parts = _by_chunks(run, params, inputs, keep, sae=sae, mesh=mesh)
  return jitted.replicate(jitted.join(parts), mesh)


def sums_of(
    context: context_lib.Context,
    units: Sequence[Unit],
    rows: labelled.Labelled,
    *,
    pooling: str | None,
) -> list[ClassSums]:
  """Returns each unit's sums over the training examples."""
  text = text_lib.in_memory(rows.tokens, context.text)
  known = np.where(rows.test[:, None, None], np.int8(-1), rows.labels)
  labels = text_lib.value_batches(text, known, -1)

  def step(tokens):
    batch, known = context.forward(tokens), next(labels)
    return [
        class_sums(
            unit.params,
            batch.values[unit.source],
            known,
            keep=batch.keep,
            sae=unit.sae,
            pooling=pooling,
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
    pooling: str | None,
) -> tuple[list[np.ndarray], Bool[np.ndarray, 'rows examples']]:
  """Returns the chosen features of each unit, and the mask of kept examples."""
  text = text_lib.in_memory(rows.tokens, context.text)

  def step(tokens):
    batch = context.forward(tokens)
    values = [
        gather(
            unit.params,
            batch.values[unit.source],
            chosen,
            keep=batch.keep,
            sae=unit.sae,
            pooling=pooling,
            mesh=text.mesh,
        )
        for unit, chosen in zip(units, columns, strict=True)
    ]
    keep = batch.keep.any(1, keepdims=True) if pooling else batch.keep
    return values, jitted.replicate(keep, text.mesh)

  values, keep = zip(
      *text_lib.over(text, step, f'evaluate: probing {rows.name}, 2 of 2'),
      strict=True,
  )
  count = len(rows.tokens)
  features = [np.concatenate(p)[:count] for p in zip(*values, strict=True)]
  return features, np.concatenate(keep)[:count]
