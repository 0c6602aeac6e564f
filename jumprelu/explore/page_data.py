"""The index of a page, and its containers by name."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

import jumprelu
from jumprelu import metrics
from jumprelu.explore import container, tables
from jumprelu.features import reading
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
    containers: Functions that return a container, by its name.
  """

  index: dict[str, Any]
  containers: Mapping[str, Callable[[], bytes]]


def collect(
    folder: pathlib.Path,
    *,
    title: str,
    results: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
) -> PageData:
  """Returns the data of a page.

  Args:
    folder: A folder of features.
    title: The title of the page.
    results: Rows of results, with the paths of members.
    curves: Training curves (`training_curves.read`).

  Raises:
    MissingInputError, DataError: The folder has no features, or damaged ones.
  """
  manifest = reading.read_manifest(folder)
  by_path = {row.get('path'): row for row in results}
  members = manifest['members']
  vocabulary = reading.read_vocabulary(folder)
  containers = {
      'vocabulary': lambda: _vocabulary(vocabulary),
      'texts': lambda: tables.texts(folder, list(numbers)),
  }
  numbers = {member['path']: i for i, member in enumerate(members)}
  described = []
  for i, member in enumerate(members):
    part = _Member(folder, member, f'm{i}', numbers, vocabulary.num_rows)
    containers |= part.containers()
    described.append(part.describe(by_path.get(member['path'], {})))
  for member, link in zip(described, _links(described), strict=True):
    member['link'] = link
  index = {
      'format': FORMAT,
      'generator': f'jumprelu {jumprelu.__version__}',
      'title': title,
      'storage_key': _digest(members),
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
      'vocabulary': 'vocabulary',
      'texts': 'texts',
  }
  return PageData(json_files.to_plain(index), containers)


def _vocabulary(table: Any) -> bytes:
  """Returns the container of the token ids' pieces and counts in the text."""
  return container.pack(
      {
          'pieces': table['piece'].to_pylist(),
          'count': np.asarray(table['count'], np.int32),
      }
  )


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
      member: Mapping[str, Any],
      name: str,
      numbers: Mapping[str, int],
      vocab: int,
  ):
    self._folder, self._member, self._name = folder, member, name
    self._numbers, self._vocab = numbers, vocab

  def _table(self, *columns: str) -> Any:
    return reading.read_table(
        self._folder, self._member['path'], columns=columns or None
    )

  def _shard_names(self) -> list[str]:
    count = -(-self._member['width'] // SHARD)
    return [f'{self._name}/{i}' for i in range(count)]

  def containers(self) -> dict[str, Callable[[], bytes]]:
    """Returns functions that return the member's containers, by name."""
    shards = iter(())

    def next_shard(i: int) -> bytes:
      # Shards are read in order, each once, so that the table is read once and
      # one shard is in memory at a time.
      nonlocal shards
      if i == 0:
        shards = tables.shards(
            self._table(), SHARD, members=self._numbers, vocab=self._vocab
        )
      return container.pack(next(shards))

    return {
        f'{self._name}/table': lambda: container.pack(
            tables.overview(self._table())
        ),
        f'{self._name}/search': lambda: container.pack(
            tables.search(self._table('top_tokens', 'promoted', 'examples'))
        ),
    } | {
        name: lambda i=i: next_shard(i)
        for i, name in enumerate(self._shard_names())
    }

  def describe(self, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the member's entry in the index.

    Args:
      row: Its row of results; empty if it was not evaluated.
    """
    table = self._table('frequency', 'examples', 'count')
    frequency = np.asarray(table['frequency'])
    few = np.diff(tables.lists(table['examples']).starts) < tables.FEW_EXAMPLES
    fires = frequency > 0
    counts, _ = np.histogram(np.log10(frequency[fires]), _DENSITY_EDGES)
    return {
        'id': self._member['path'],
        **{k: self._member[k] for k in ('site', 'layer', 'width', 'variant')},
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
        'shards': self._shard_names(),
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
