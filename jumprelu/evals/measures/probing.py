"""Sparse probing: how well a few latents predict a label.

For each task and several k, a logistic regression is fitted to the k latents
whose class means differ most on the training set (Gurnee et al., arXiv
2305.01610, and SAEBench, arXiv 2503.09532). It is scored on test documents. The
baselines are probes on the best k channels of the activations, and on all
channels. Classes have equal weight in training (`probe`), so the main score is
balanced accuracy, which is 0.5 at chance. Accuracy and F1 depend on
`base_rate`, the share of positives in the test set. Standard errors are over
documents (`ratio_errors`).

Differences from SAEBench: there are tasks on tokens as well as on texts, the
data is local, train and test sets consist of whole documents, and features are
scaled to unit standard deviation.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.evals import results
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import examples, labelled, probe

# Numbers of features of the sparse probes.
KS = (1, 2, 5, 20)
_SCORES = {
    'accuracy': probe.ACCURACY,
    'balanced_accuracy': probe.BALANCED_ACCURACY,
    'f1': probe.F1,
}


class _Task(NamedTuple):
  """The examples of one task, with their labels and documents."""

  name: str
  labels: Bool[np.ndarray, ' examples']
  documents: Int[np.ndarray, ' examples']
  test: Bool[np.ndarray, ' examples']
  # Indices of the examples among the flattened rows.
  index: Int[np.ndarray, ' examples']


def _tasks(rows, keep) -> Iterator[_Task]:
  """Yields the tasks with their kept examples.

  Raises:
    UserError: if a task has only one class in the train or test set.
  """
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
            f'probing {rows.name}: task {name!r} has only one class in the'
            f' {side} set; add texts, or raise measure.probing.tokens'
        )
    yield task


def _score(
    task: _Task, features: Float[np.ndarray, 'examples features']
) -> results.Row:
  """Returns the test scores of a probe fitted on the training set."""
  fitted = probe.fit(features[~task.test], task.labels[~task.test])
  counts = probe.confusion(
      fitted.logits(features[task.test]) > 0,
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
  """Indices of a unit's best features: for each task, and for all together.

  `columns` is sorted and contains all of `by_task`.
  """

  by_task: Int[np.ndarray, 'tasks best']
  columns: Int[np.ndarray, ' columns']

  @classmethod
  def from_sums(cls, sums: examples.ClassSums, *, whole: bool) -> '_Ranked':
    """Returns the features whose class means differ most in absolute value.

    With `whole`, `columns` has every feature.
    """
    size = np.nan_to_num(np.abs(sums.difference()))
    by_task = np.argsort(-size, 1, kind='stable')[:, : max(KS)]
    if whole:
      return cls(by_task, np.arange(size.shape[1]))
    columns = np.unique(by_task)
    # Padded to one shape, because each shape would be compiled separately.
    missing = by_task.size - len(columns)
    return cls(by_task, np.pad(columns, (0, missing), mode='edge'))


def of_rows(
    context: context_lib.Context, rows: labelled.Labelled
) -> list[results.Row]:
  """Returns the scores of every member and of its inputs, for all tasks."""
  taps = sorted({member.source for member in context.members})
  units = [
      *(examples.Unit(m.sae, m.params, m.source) for m in context.members),
      *(examples.Unit(None, {}, tap) for tap in taps),
  ]
  pooling = context.settings.probing.pooling if rows.pooled else None
  ranked = [
      _Ranked.from_sums(sums, whole=unit.sae is None)
      for unit, sums in zip(
          units,
          examples.sums_of(context, units, rows, pooling=pooling),
          strict=True,
      )
  ]
  values, keep = examples.values_of(
      context, units, rows, [r.columns for r in ranked], pooling=pooling
  )
  tasks = list(_tasks(rows, keep))
  scores = [
      list(_probe(unit, *of_unit, tasks=tasks))
      for unit, *of_unit in zip(units, ranked, values, strict=True)
  ]
  by_tap = dict(zip(taps, scores[len(context.members) :], strict=True))
  return [
      {'path': name, 'set': rows.name} | row
      for i, (name, member) in enumerate(
          zip(context.names, context.members, strict=True)
      )
      for row in scores[i] + by_tap[member.source]
  ]


def _probe(unit, ranked, values, *, tasks) -> Iterator[results.Row]:
  """Yields the scores of a unit, for each task and k."""
  features = values.reshape(-1, values.shape[-1])
  kind = 'activations' if unit.sae is None else 'latents'
  for number, task in enumerate(tasks):
    task_features = features[task.index]
    for k in (k for k in KS if k <= ranked.by_task.shape[1]):
      chosen = ranked.by_task[number, :k]
      columns = np.searchsorted(ranked.columns, chosen)
      yield {
          'task': task.name,
          'features': kind,
          'k': k,
          'chosen': ' '.join(map(str, chosen)),
      } | _score(task, task_features[:, columns])
    if unit.sae is None:
      yield {
          'task': task.name,
          'features': 'all activations',
          'k': task_features.shape[1],
          'chosen': '',
      } | _score(task, task_features)


def _columns(table: Iterable[results.Row], name: str) -> dict[str, Any]:
  """Returns a member's balanced accuracies, averaged over all tasks."""
  by_column: dict[str, list[float]] = {}
  for row in table:
    if row['path'] != name:
      continue
    kind = row['features'].replace(' ', '_')
    key = (
        f'probing_{kind}'
        if kind[:3] == 'all'
        else f'probing_{kind}_k{row["k"]}'
    )
    by_column.setdefault(key, []).append(row['balanced_accuracy'])
  columns: dict[str, Any] = {key: np.mean(v) for key, v in by_column.items()}
  return columns | {'tasks_probing': max(map(len, by_column.values()))}


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Returns the scores of all members on all labelled sets."""
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
