"""The explanations of a page's latents, from the sets in its features."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from jumprelu.features import reading

# The scores, in the order of the page's arrays.
KINDS = ('detection', 'fuzzing', 'intruder', 'simulation')
_PARTS = ('score', 'low', 'high', 'count', 'unparsable')
_DECIMALS = 3


class Explanations:
  """The explanations of all members in a folder of features.

  Attributes:
    sets: Name, explainer, judge and model of each set; that of rules is first.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    manifests = reading.read_explanation_sets(folder)
    names = sorted(
        manifests, key=lambda name: (manifests[name]['explainer'] != 'rules')
    )
    self._members = {
        name: {entry['path'] for entry in manifests[name]['members']}
        for name in names
    }
    self.sets = [
        {'name': name}
        | {key: manifests[name][key] for key in ('explainer', 'judge', 'model')}
        for name in names
    ]

  def of(self, member: str, width: int) -> list[list[Any]]:
    """Returns a list for each latent of a member.

    An entry is the number of the set, the text (None without an explanation),
    and for each kind of score the list of its `Score`'s fields.

    Args:
      member: The path of the member.
      width: The number of latents.
    """
    latents: list[list[Any]] = [[] for _ in range(width)]
    for number, name in enumerate(self._members):
      if member in self._members[name]:
        table = reading.read_explanations(self._folder, name, member)
        for row in table.to_pylist():
          scores = [_score(row[kind]) for kind in KINDS]
          entry = [number, row['explanation'], scores]
          latents[row['latent']].append(entry)
    return latents


def detection(latents: Sequence[Sequence[Any]]) -> np.ndarray:
  """Returns the detection score in the first set of each latent; NaN if none.

  Args:
    latents: The result of `Explanations.of`.
  """
  scores = [entries[0][2][0][0] if entries else None for entries in latents]
  return np.array([np.nan if s is None else s for s in scores], np.float32)


def _score(score: Mapping[str, Any]) -> list[float | int | None]:
  values = [score[name] for name in _PARTS]
  return [round(v, _DECIMALS) if isinstance(v, float) else v for v in values]
