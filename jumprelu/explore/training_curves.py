"""Training curves of the members of a page."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from jumprelu.training import metrics_file

# Points per curve.
_POINTS = 200
# {name in the page: metric of the run}.
_METRICS = {
    'l0': 'l0',
    'fvu': 'fvu',
    'loss': 'loss',
    'dead': 'dead_share',
    'threshold': 'threshold',
}
_IDENTITY = ('site', 'layer', 'width', 'variant', 'sparsity_coefficient', 'target_l0', 'seed')  # fmt: skip


def read(
    run: pathlib.Path, results: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
  """Returns the curves of the members that are in rows of results.

  Args:
    run: The run directory.
    results: Rows of results, with the paths of members.

  Raises:
    MissingInputError, UserError, DataError: As `metrics_file.read`.
  """
  by_member: dict[tuple[Any, ...], list[metrics_file.Row]] = {}
  for row in metrics_file.read(run, limit=_POINTS):
    by_member.setdefault(_identity(row), []).append(row)
  out = []
  for result in results:
    rows = by_member.get(_identity(result), [])
    if not rows or 'path' not in result:
      continue
    series: dict[str, Any] = {
        name: [row[metric] for row in rows]
        for name, metric in _METRICS.items()
        if metric in rows[0]
    }
    series['positions'] = [row['tokens_trained'] for row in rows]
    series['target_l0'] = result.get('target_l0') or None
    out.append({'member': result['path'], 'series': series})
  return out


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
  return tuple(row.get(name) or 0 for name in _IDENTITY)
