"""Export in Neuronpedia's layout for bulk imports.

    MODEL/LAYER-SET/release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl
    MODEL/LAYER-SET/features/batch-0.jsonl.gz      a row for each latent
    MODEL/LAYER-SET/activations/batch-0.jsonl.gz   a row for each example

The files are written from features that were collected (`jumprelu features`).
Neuronpedia's maintainers import them; nothing is uploaded here. Histograms of
logits are left empty, because features have the largest effects only.
"""

from collections.abc import Iterator, Mapping, Sequence
import datetime
import gzip
import hashlib
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.features import exports, reading
from jumprelu.release import layout
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks

NAME = 'neuronpedia'
_BATCH = 128
_DIGITS = 4
# The bins of examples that are the strongest ones, as SAEDashboard writes them.
_TOP = {'binMin': -1.0, 'binMax': 99.0, 'binContains': -1.0}
_SITES = {
    'resid_post': 'res',
    'mlp_out': 'mlp',
    'attn_heads': 'att',
    'transcoder': 'transcoder',
}
# Coordinates of the decoder row that are listed.
_ALIGNED = 3
_EMPTY = (
    'correlated_neurons_indices', 'correlated_neurons_pearson',
    'correlated_neurons_l1', 'correlated_features_indices',
    'correlated_features_pearson', 'correlated_features_l1',
    'logits_hist_data_bar_heights', 'logits_hist_data_bar_values',
    'decoder_weights_dist',
)  # fmt: skip


def write(
    sources: exports.Sources,
    out: pathlib.Path,
    *,
    folder: str | os.PathLike[str],
    creator: str = '',
) -> list[str]:
  """Writes the latents of each SAE; returns warnings.

  Args:
    sources: The SAEs.
    out: The folder to write, which exists and is empty.
    folder: The features of the SAEs.
    creator: The creator's name, for Neuronpedia's tables.

  Raises:
    MissingInputError: there are no features.
    UserError: the features are not those of the SAEs.
  """
  manifest = exports.read_manifest(folder, sources)
  pieces, warnings = exports.read_pieces(folder), []
  now = datetime.datetime.now(datetime.UTC).isoformat()
  for source in sources:
    model, notes = source_lib.model_name(source)
    warnings += notes
    target = out / model / source_id(source)
    if target.exists():
      raise errors.UserError(
          f'--to={NAME}: {source.path} has the same source id as another SAE'
          f' ({source_id(source)}); choose with --members'
      )
    for name in ('features', 'activations'):
      (target / name).mkdir(parents=True)
    shared = {
        'modelId': model,
        'layer': source_id(source),
        'creatorId': creator,
        'createdAt': now,
    }
    _write_tables(target, source, manifest, shared=shared)
    for number in range(math.ceil(source.released.sae.width / _BATCH)):
      start = number * _BATCH
      stop = min(start + _BATCH, source.released.sae.width)
      rows = reading.read_latents(
          folder, source.path, latents=range(start, stop)
      )
      _write_batch(
          target,
          number,
          rows,
          source=source,
          shared=shared,
          edges=manifest['histogram_edges'],
          pieces=pieces,
      )
  return warnings


def source_id(source: source_lib.Source) -> str:
  """Returns Neuronpedia's id, such as 20-jumprelu-res-16k__l0-71."""
  origin = source.released.origin
  suffix = '' if source.l0 is None else f'__l0-{layout.l0_name(source.l0)}'
  return f'{origin.layer}-{_set_id(source)}{suffix}'


def _set_id(source: source_lib.Source) -> str:
  site = _SITES.get(str(source.released.origin.site), 'sae')
  width = layout.width_name(source.released.sae.width)
  return f'jumprelu-{site}-{width}'


def _write_tables(
    target: pathlib.Path,
    source: source_lib.Source,
    manifest: Mapping[str, Any],
    *,
    shared: Mapping[str, Any],
) -> None:
  """Writes the rows of the release, the model, the set and the source."""
  model, created = shared['modelId'], shared['createdAt']
  creator = {
      'creatorId': shared['creatorId'], 'creatorName': shared['creatorId'],
  }  # fmt: skip
  visible = {'visibility': 'PUBLIC', 'createdAt': created}
  text, length = manifest['text'], manifest['text']['sequence_length']
  tables = {
      'release': {
          'name': _set_id(source),
          'description': f'{source.path} on {model}',
          'descriptionShort': source.path,
          'urls': [],
          **creator,
          **visible,
      },
      'model': {
          'id': model,
          'instruct': model.endswith('-it'),
          'displayNameShort': model,
          'displayName': model,
          'creatorId': shared['creatorId'],
          'updatedAt': created,
          **visible,
      },
      'sourceset': {
          'modelId': model,
          'name': _set_id(source),
          'description': source.path,
          'releaseName': _set_id(source),
          'hasDashboards': True,
          **creator,
          **visible,
      },
      'source': {
          'id': source_id(source),
          'modelId': model,
          'setName': _set_id(source),
          'creatorId': shared['creatorId'],
          'hasDashboards': True,
          'dataset': text['source'],
          'num_prompts': manifest['positions'] // length,
          'num_tokens_in_prompt': length,
          'hfFolderId': source.path,
          **visible,
      },
  }
  for name, row in tables.items():
    (target / f'{name}.jsonl').write_text(_line(row), encoding='utf-8')


def _write_batch(
    target: pathlib.Path,
    number: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    source: source_lib.Source,
    shared: Mapping[str, Any],
    edges: Sequence[float],
    pieces: Sequence[str],
) -> None:
  """Writes a batch of latents and their examples."""
  hook, _ = hooks.hooks_of(source.released.origin)['transformer_lens']
  W_dec = np.asarray(source.released.params['W_dec'])
  latents, examples = [], []
  for row in rows:
    latents.append(
        {
            **shared,
            'index': str(row['latent']),
            'hookName': hook,
            'sourceSetName': _set_id(source),
            **_latent(row, edges=edges, pieces=pieces),
            **_direction(W_dec[row['latent']], largest=row['largest']),
        }
    )
    for count, example in enumerate(_examples(row, pieces)):
      key = f'{source.path} {row["latent"]} {count}'
      identity = hashlib.sha256(key.encode()).hexdigest()
      examples.append(
          {
              'id': f'c{identity[:24]}',
              **shared,
              'index': str(row['latent']),
              **example,
          }
      )
  for name, lines in (('features', latents), ('activations', examples)):
    data = ''.join(map(_line, lines)).encode()
    path = target / name / f'batch-{number}.jsonl.gz'
    path.write_bytes(gzip.compress(data, compresslevel=5, mtime=0))


def _latent(
    row: Mapping[str, Any], *, edges: Sequence[float], pieces: Sequence[str]
) -> dict[str, Any]:
  """Returns the fields that are computed from the features."""
  counts = np.asarray(row['histogram'])
  bins = np.flatnonzero(counts)
  # The first and the last bin are open.
  lower = np.concatenate([[0.0], np.asarray(edges, np.float64)])
  upper = np.concatenate([np.asarray(edges, np.float64), [row['largest']]])
  effects = {
      f'{sign}_{field}': values
      for sign, column in (('pos', 'promoted'), ('neg', 'suppressed'))
      for field, values in (
          ('str', [pieces[entry['token']] for entry in row[column]]),
          ('values', _numbers(entry['effect'] for entry in row[column])),
      )
  }
  return {
      'maxActApprox': _number(row['largest']),
      'frac_nonzero': row['frequency'],
      'freq_hist_data_bar_heights': counts[bins].tolist(),
      'freq_hist_data_bar_values': _numbers((lower[bins] + upper[bins]) / 2),
      'topkCosSimIndices': [entry['latent'] for entry in row['neighbours']],
      'topkCosSimValues': _numbers(
          entry['cosine'] for entry in row['neighbours']
      ),
      **effects,
      **{name: [] for name in _EMPTY},
  }


def _direction(vector: np.ndarray, *, largest: float) -> dict[str, Any]:
  """Returns the fields that are computed from the decoder row."""
  size = np.abs(vector)
  first = np.argsort(-size, kind='stable')[:_ALIGNED]
  return {
      'hasVector': True,
      'vector': [float(x) for x in vector],
      'vectorLabel': None,
      'vectorDefaultSteerStrength': _number(largest),
      'neuron_alignment_indices': first.tolist(),
      'neuron_alignment_values': _numbers(vector[first]),
      'neuron_alignment_l1': _numbers(
          size[first] / max(float(size.sum()), 1e-30)
      ),
  }


def _examples(
    row: Mapping[str, Any], pieces: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Yields the rows of a latent's examples, the strongest ones first."""
  edges = row['band_edges'] or []
  for column in ('examples', 'band_examples'):
    for example in row[column]:
      bins = dict(_TOP, binMax=_number(row['largest']))
      if column == 'band_examples':
        band, bands = example['band'], max(len(edges) - 1, 1)
        known = len(edges) > band + 1
        bins = {
            'binMin': _number(edges[band]) if known else 0.0,
            'binMax': _number(edges[band + 1]) if known else 0.0,
            'binContains': round(1 / bands, _DIGITS),
        }
      values = _numbers(example['values'])
      largest = max(values)
      yield {
          'tokens': [pieces[token] for token in example['tokens']],
          'values': values,
          'maxValue': largest,
          'maxValueTokenIndex': values.index(largest),
          'minValue': min(values),
          'qualifyingTokenIndex': example['index'],
          'dfaValues': [],
          'dfaTargetIndex': None,
          'dfaMaxValue': None,
          'lossValues': [],
          'logitContributions': None,
          'dataIndex': str(example['position']),
          'dataSource': None,
          **bins,
      }


def _line(row: Mapping[str, Any]) -> str:
  return json.dumps(row, ensure_ascii=False, allow_nan=False) + '\n'


def _numbers(values: Any) -> list[float]:
  return [_number(value) for value in values]


def _number(value: Any) -> float:
  """Returns a rounded number; 0 for a number that is not finite."""
  value = float(value)
  return round(value, _DIGITS) if math.isfinite(value) else 0.0
