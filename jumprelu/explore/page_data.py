"""The index of a page, and its containers by name."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import pathlib
from typing import Any

import numpy as np

import jumprelu
from jumprelu import metrics
from jumprelu.explore import container, explanations, tables
from jumprelu.features import arrow, reading
from jumprelu.files import json_files

# Incremented when the script must be changed to read the data.
FORMAT = 1
# Latents per shard: the page decodes a shard in a few milliseconds.
SHARD = 128
# Bins of log10 frequency, four to the decade.
_DENSITY_EDGES = np.arange(-28, 1) / 4

# (field of a row of results, heading, explanation), in the order of the table.
_COLUMNS = (
    ('l0', 'L0', 'Mean number of active latents per token'),
    ('target_l0', 'Target L0', 'The L0 that training aimed at'),
    (
        'sparsity_coefficient',
        'Coefficient',
        'The factor of the sparsity penalty in the loss',
    ),
    ('fvu', 'FVU', 'Fraction of variance unexplained by the reconstruction'),
    ('pca_fvu', 'PCA FVU', 'FVU of a PCA with L0 components, a baseline'),
    (
        'delta_loss',
        'Delta loss',
        "Increase of the language model's loss, in nats per token, if the"
        ' reconstruction replaces the activations',
    ),
    (
        'loss_recovered',
        'Recovered',
        'Share of the loss recovered, relative to zero ablation',
    ),
    ('dead_share', 'Dead', 'Share of latents that never fired in evaluation'),
    (
        'dense_share',
        'Dense',
        'Share of latents that fire on over 10% of tokens',
    ),
    ('seed', 'Seed', 'Seed of the initialisation'),
    ('tokens_trained', 'Tokens', 'Tokens of training'),
)


@dataclasses.dataclass(frozen=True)
class PageData:
  """The data of a page.

  Attributes:
    index: The index, which the page reads at its start.
    names: The names of the containers, in order.
    containers: Yields name and container of each, one at a time.
  """

  index: dict[str, Any]
  names: Sequence[str]
  containers: Callable[[], Iterator[tuple[str, bytes]]]


def collect(
    folder: pathlib.Path,
    *,
    title: str,
    members: Collection[str] | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
) -> PageData:
  """Returns the data of a page.

  Args:
    folder: A folder of features.
    title: The title of the page.
    members: The paths of its members; all if None.
    results: Rows of results, with the paths of members.
    curves: Training curves (`training_curves.read`).

  Raises:
    MissingInputError, DataError: The folder has no features, or damaged ones.
  """
  manifest = reading.read_manifest(folder)
  by_path = {row.get('path'): row for row in results}
  entries = [
      entry
      for entry in manifest['members']
      if members is None or entry['path'] in members
  ]
  explained = explanations.Explanations(folder)
  parts = [
      _Member(folder, entry, f'm{i}', explained)
      for i, entry in enumerate(entries)
  ]
  described = [part.describe(by_path.get(part.path, {})) for part in parts]
  for member, link in zip(described, _links(described), strict=True):
    member['link'] = link
  index = {
      'format': FORMAT,
      'generator': f'jumprelu {jumprelu.__version__}',
      'title': title,
      'storage_key': _digest(entries),
      'blobs': 'inline',
      'live': None,
      'model': manifest['model'],
      'text': manifest['text']
      | {key: manifest[key] for key in ('tokens', 'documents', 'positions')},
      'settings': manifest['settings'],
      'histogram_edges': manifest['histogram_edges'],
      'position_totals': manifest['position_totals'],
      'results_columns': _results_columns(described),
      'members': described,
      'curves': list(curves),
      'explanations': explained.sets,
      'vocabulary': 'vocabulary',
      'texts': 'texts',
  }
  names = ['vocabulary', 'texts', *(n for part in parts for n in part.names)]
  containers = functools.partial(_containers, folder, parts)
  return PageData(json_files.to_plain(index), names, containers)


def _containers(
    folder: pathlib.Path, parts: Sequence['_Member']
) -> Iterator[tuple[str, bytes]]:
  """Yields the name and the container of each, in the order of the names."""
  vocabulary = reading.read_vocabulary(folder)
  pieces = {
      'pieces': vocabulary['piece'].to_pylist(),
      'count': np.asarray(vocabulary['count'], np.int32),
  }
  yield 'vocabulary', container.pack(pieces)
  numbers = {part.path: i for i, part in enumerate(parts)}
  yield 'texts', tables.texts(folder, list(numbers))
  for part in parts:
    yield from part.containers(numbers, vocab=vocabulary.num_rows)


def _results_columns(
    members: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
  """Returns the columns of results that any member has."""
  return [
      {'name': name, 'title': heading, 'help': text}
      for name, heading, text in _COLUMNS
      if any(m['results'].get(name) not in (None, 0) for m in members)
  ]


class _Member:
  """A member's containers and its entry in the index."""

  def __init__(
      self,
      folder: pathlib.Path,
      entry: Mapping[str, Any],
      name: str,
      explained: explanations.Explanations,
  ):
    self._folder, self._entry, self._name = folder, entry, name
    self._explained = explained
    self.path: str = entry['path']
    count = -(-entry['width'] // SHARD)
    self._shards = [f'{name}/{i}' for i in range(count)]

  @property
  def names(self) -> list[str]:
    """Returns the names of the member's containers, in order."""
    return [f'{self._name}/table', f'{self._name}/search', *self._shards]

  def containers(
      self, numbers: Mapping[str, int], *, vocab: int
  ) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the container of each.

    Args:
      numbers: The numbers of the page's members, by path.
      vocab: The number of token ids.
    """
    table = reading.read_table(self._folder, self.path)
    shards = tables.shards(table, SHARD, members=numbers, vocab=vocab)
    overview = tables.overview(table)
    if self._explained.sets:
      latents = self._explained.of(self.path, len(table))
      overview['detection'] = explanations.detection(latents)
      shards = (
          shard | {'explanations': latents[i * SHARD : (i + 1) * SHARD]}
          for i, shard in enumerate(shards)
      )
    arrays = itertools.chain([overview, tables.search(table)], shards)
    for name, part in zip(self.names, arrays, strict=True):
      yield name, container.pack(part)

  def describe(self, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the member's entry in the index.

    Args:
      row: Its row of results; empty if it was not evaluated.
    """
    table = reading.read_table(
        self._folder, self.path, columns=('frequency', 'examples')
    )
    frequency = np.asarray(table['frequency'])
    few = (
        np.diff(arrow.lists_of(table['examples']).starts) < tables.FEW_EXAMPLES
    )
    fires = frequency > 0
    counts, _ = np.histogram(np.log10(frequency[fires]), _DENSITY_EDGES)
    return {
        'id': self.path,
        **{k: self._entry[k] for k in ('site', 'layer', 'width', 'variant')},
        'results': {'l0': frequency.sum()} | dict(row),
        'few_examples': metrics.ratio(few.sum(), len(few)),
        'never': int((~fires).sum()),
        'density': {
            'edges': _DENSITY_EDGES.tolist(),
            'counts': counts.tolist(),
        },
        'shard': SHARD,
        'table': f'{self._name}/table',
        'search': f'{self._name}/search',
        'shards': self._shards,
    }


def _links(members: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a short name of each member, from the first scheme without twins."""
  schemes = (
      ('site',),
      ('site', 'layer'),
      ('site', 'layer', 'width'),
      ('site', 'layer', 'width', 'variant'),
  )
  for scheme in schemes:
    names = [
        '/'.join(
            [*(str(m[key]) for key in scheme), f'{m["results"]["l0"]:.0f}']
        )
        for m in members
    ]
    if len(set(names)) == len(names):
      return names
  return [m['id'] for m in members]


def _digest(members: Sequence[Mapping[str, Any]]) -> str:
  """Returns a digest of the SAEs, which does not depend on the text."""
  text = '\n'.join(sorted(f'{m["path"]} {m["sha256"]}' for m in members))
  return hashlib.sha256(text.encode()).hexdigest()[:24]
