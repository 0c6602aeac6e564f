"""Sparse probing: how well a label is told by a few latents.

For each task, the latents whose means over the two classes differ most (by
absolute value, on the training side; Gurnee et al., arXiv 2305.01610, and
SAEBench, arXiv 2503.09532) are given to a logistic regression, for a few
numbers k of latents, and scored on documents that it has not seen. The same
with single channels of the activations, and with all channels, is what there
is to reach and to beat. The classes weigh the same in training (`probe`):
balanced accuracy, which is 0.5 for a guess, is the number to read; accuracy and
F1 are at the rate of the text (`base_rate`, the positives' share). Standard
errors are over documents (`ratios`).

What differs from SAEBench: tasks of tokens beside tasks of texts, data that is
local, documents that are split and not examples, features of unit spread.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.evals import results
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import examples, labelled, probe

# How many latents a probe is given.
KS = (1, 2, 5, 20)
_SCORES = {
    'accuracy': probe.ACCURACY,
    'balanced_accuracy': probe.BALANCED_ACCURACY,
    'f1': probe.F1,
}


class _Task(NamedTuple):
  """The examples of one task: where they are, and what is known of them."""

  name: str
  labels: Bool[np.ndarray, ' examples']
  documents: Int[np.ndarray, ' examples']
  test: Bool[np.ndarray, ' examples']
  # Numbers of the examples among all of the rows.
  index: Int[np.ndarray, ' examples']


def _tasks(rows, keep) -> Iterator[_Task]:
  """Yields the tasks, each with both classes on both sides."""
  shape = rows.labels.shape[:2]
  documents = np.broadcast_to(rows.documents[:, None], shape).ravel()
  test = np.broadcast_to(rows.test[:, None], shape).ravel()
  for i, name in enumerate(rows.tasks):
    known = np.where(keep, rows.labels[..., i], -1).ravel()
    index = np.flatnonzero(known >= 0)
    task = _Task(name, known[index] == 1, documents[index], test[index], index)
    for side, chosen in (('train', ~task.test), ('test', task.test)):
      if len(np.unique(task.labels[chosen])) < 2:
        raise errors.UserError(
            f'probing {rows.name}: task {name!r} has only one class on the'
            f' {side} side; give more texts, or raise measure.probing.tokens'
        )
    yield task


def _score(
    task: _Task, features: Float[np.ndarray, 'examples features']
) -> results.Row:
  """Fits a probe on the training side and scores it on the other."""
  found = probe.fit(features[~task.test], task.labels[~task.test])
  counts = probe.confusion(
      found.logits(features[task.test]) > 0,
      task.labels[task.test],
      task.documents[task.test],
  )
  row: results.Row = {}
  for name, ratios in _SCORES.items():
    row[name], row[f'{name}_stderr'] = counts.estimate(*ratios)
  row['base_rate'], _ = counts.estimate(*probe.BASE_RATE)
  row['examples_train'] = int((~task.test).sum())
  row['examples_test'] = int(task.test.sum())
  row['documents_test'] = counts.groups
  return row


class _Ranked(NamedTuple):
  """A unit's best features: of each task, and those of all tasks."""

  by_task: Int[np.ndarray, 'tasks best']
  columns: Int[np.ndarray, ' columns']

  @classmethod
  def from_sums(cls, sums: examples.ClassSums, *, whole: bool) -> '_Ranked':
    """Ranks by the difference of means; `whole`: every column is fetched."""
    size = np.nan_to_num(np.abs(sums.difference()))
    by_task = np.argsort(-size, 1, kind='stable')[:, : max(KS)]
    if whole:
      return cls(by_task, np.arange(size.shape[1]))
    found = np.unique(by_task)
    # One shape for all members, or each would be compiled for.
    missing = by_task.size - len(found)
    return cls(by_task, np.pad(found, (0, missing), mode='edge'))


def of_rows(
    context: context_lib.Context, rows: labelled.Labelled
) -> list[results.Row]:
  """Probes every member, and the activations it reads, for all tasks."""
  taps = sorted({member.source for member in context.members})
  units = [
      *(examples.Unit(m.sae, m.params, m.source) for m in context.members),
      *(examples.Unit(None, {}, tap) for tap in taps),
  ]
  how = context.settings.probing.pooling if rows.pooled else None
  ranked = [
      _Ranked.from_sums(sums, whole=unit.sae is None)
      for unit, sums in zip(
          units,
          examples.sums_of(context, units, rows, how=how),
          strict=True,
      )
  ]
  values, keep = examples.values_of(
      context, units, rows, [r.columns for r in ranked], how=how
  )
  tasks = list(_tasks(rows, keep))
  found = [
      list(_probe(unit, *of_unit, tasks=tasks))
      for unit, *of_unit in zip(units, ranked, values, strict=True)
  ]
  by_tap = dict(zip(taps, found[len(context.members) :], strict=True))
  return [
      {'path': name, 'set': rows.name} | row
      for i, (name, member) in enumerate(
          zip(context.names, context.members, strict=True)
      )
      for row in found[i] + by_tap[member.source]
  ]


def _probe(unit, ranked, values, *, tasks) -> Iterator[results.Row]:
  """Yields the scores of a unit, task by task."""
  features = values.reshape(-1, values.shape[-1])
  kind = 'activations' if unit.sae is None else 'latents'
  for number, task in enumerate(tasks):
    own = features[task.index]
    for k in (k for k in KS if k <= ranked.by_task.shape[1]):
      chosen = ranked.by_task[number, :k]
      some = own[:, np.searchsorted(ranked.columns, chosen)]
      yield {
          'task': task.name,
          'features': kind,
          'k': k,
          'chosen': ' '.join(map(str, chosen)),
      } | _score(task, some)
    if unit.sae is None:
      all_of_it = {'task': task.name, 'features': 'all activations'}
      yield all_of_it | {'k': own.shape[1], 'chosen': ''} | _score(task, own)


def _columns(table: Iterable[results.Row], name: str) -> dict[str, Any]:
  """Returns a member's balanced accuracies, averaged over all tasks."""
  found: dict[str, list[float]] = {}
  for row in table:
    if row['path'] != name:
      continue
    kind = row['features'].replace(' ', '_')
    key = (
        f'probing_{kind}'
        if kind[:3] == 'all'
        else f'probing_{kind}_k{row["k"]}'
    )
    found.setdefault(key, []).append(row['balanced_accuracy'])
  columns: dict[str, Any] = {key: np.mean(v) for key, v in found.items()}
  return columns | {'tasks_probing': max(map(len, found.values()))}


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Probes all members on the sets that the settings name."""
  layout = labelled.layout_of(context)
  percent = context.text.cache.manifest['held_out_percent']
  table = []
  for rows in labelled.load(
      context.settings.probing, layout, held_out_percent=percent
  ):
    table += of_rows(context, rows)
  return context_lib.Measured(
      [_columns(table, name) for name in context.names], table
  )
