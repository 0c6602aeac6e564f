"""Export to SAEBench: SAEs, and core results in its schema.

    PATH/cfg.json, ...                     the SAE, in SAELens's format
    eval_results/core/NAME_eval_results.json

SAEBench reads SAEs of SAELens. Core results are those of
`jumprelu evaluate --measures=saebench --out=FILE.jsonl`. Metrics of single
latents are computed from arrays and firing frequencies; like SAEBench, -1
replaces values that are unknown.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import time
from typing import Any
import uuid

import numpy as np

import jumprelu
from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release.exports import saelens
from jumprelu.release.exports import source as source_lib

NAME = 'saebench'
_PREFIX = 'saebench_'
# SAEBench's categories and metrics, which are columns of our results.
_METRICS = {
    'model_behavior_preservation': (
        'kl_div_score', 'kl_div_with_ablation', 'kl_div_with_sae',
    ),
    'model_performance_preservation': (
        'ce_loss_score', 'ce_loss_with_ablation', 'ce_loss_with_sae',
        'ce_loss_without_sae',
    ),
    'reconstruction_quality': (
        'explained_variance', 'explained_variance_legacy', 'mse', 'cossim',
    ),
    'shrinkage': (
        'l2_norm_in', 'l2_norm_out', 'l2_ratio',
        'relative_reconstruction_bias',
    ),
    'sparsity': ('l0', 'l1'),
}  # fmt: skip
_UNKNOWN = -1
_DIGITS = 10
_BLOCK = 1024
# Identities of results are derived from this name and the SAE's digest.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, 'jumprelu.saebench')


def write(
    sources: Sequence[source_lib.Source],
    out: pathlib.Path,
    *,
    results: str | os.PathLike[str] | None = None,
) -> list[str]:
  """Writes a folder for each SAE, and core results; returns warnings.

  Args:
    sources: The SAEs.
    out: The folder to write, which exists and is empty.
    results: The file of results; only SAEs are written without it.

  Raises:
    MissingInputError: there is no such file.
    DataError: the file lacks an SAE or its columns.
    UserError: SAELens has no such SAE; the message names it.
  """
  warnings = saelens.write(sources, out)
  if results is None:
    return [
        *warnings,
        'core results are only written with --results=FILE.jsonl, from jumprelu'
        ' evaluate --measures=saebench --out=FILE.jsonl',
    ]
  rows = {row.get('path'): row for row in json_files.read_lines(results)}
  folder = out / 'eval_results' / 'core'
  folder.mkdir(parents=True)
  for source in sources:
    if source.path not in rows:
      raise errors.DataError(f'{results}: has no row of {source.path}')
    name = source.name.replace('/', '_')
    value = _output(source, rows[source.path], where=str(results))
    json_files.write_json(folder / f'{name}_eval_results.json', value)
  return warnings


def _output(
    source: source_lib.Source, row: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
  """Returns SAEBench's record of a core evaluation."""
  wanted = [name for names in _METRICS.values() for name in names]
  if missing := [n for n in wanted if row.get(f'{_PREFIX}{n}') is None]:
    raise errors.DataError(
        f'{where}: {source.path} lacks {_PREFIX}{missing[0]}; evaluate with'
        ' --measures=saebench'
    )
  metrics: dict[str, Any] = {
      category: {name: row[f'{_PREFIX}{name}'] for name in names}
      for category, names in _METRICS.items()
  }
  metrics['token_stats'] = {
      'total_tokens_eval_reconstruction': int(
          row.get('tokens_delta_loss') or _UNKNOWN
      ),
      'total_tokens_eval_sparsity_variance': int(
          row.get('tokens_delta_loss') or _UNKNOWN
      ),
  }
  details = _details(source)
  metrics['misc_metrics'] = _summary(source, details)
  digest = source.released.digest()
  return {
      'eval_type_id': 'core',
      'eval_config': {'source': f'jumprelu {jumprelu.__version__}'},
      'eval_id': str(uuid.uuid5(_NAMESPACE, digest)),
      'datetime_epoch_millis': int(time.time() * 1000),
      'eval_result_metrics': metrics,
      'eval_result_details': details,
      'eval_result_unstructured': {},
      'sae_bench_commit_hash': f'jumprelu {jumprelu.__version__}',
      'sae_lens_id': source.path,
      'sae_lens_release_id': source.name,
      'sae_lens_version': saelens.VERSION,
      'sae_cfg_dict': saelens.config_of(source),
  }


def _details(source: source_lib.Source) -> list[dict[str, Any]]:
  """Returns SAEBench's metrics of each latent."""
  params = source_lib.params_of(source)
  encoder, decoder = params['W_enc'].T, params['W_dec']
  norms = np.linalg.norm(encoder, axis=1)
  if encoder.shape == decoder.shape:
    cosines = (_unit(encoder) * _unit(decoder)).sum(axis=1)
  else:
    cosines = np.full(len(encoder), _UNKNOWN, np.float32)
  density = source.frequency
  columns = {
      'feature_density': np.full(len(norms), _UNKNOWN)
      if density is None
      else density,
      'encoder_bias': params.get('b_mag', params['b_enc']),
      'encoder_norm': norms,
      'encoder_decoder_cosine_sim': cosines,
      'max_encoder_cosine_sim': _nearest(encoder),
      'max_decoder_cosine_sim': _nearest(decoder),
  }
  return [
      {
          'index': index,
          'consistent_activation_heuristic': _UNKNOWN,
          **{
              name: round(float(values[index]), _DIGITS)
              for name, values in columns.items()
          },
      }
      for index in range(len(norms))
  ]


def _summary(
    source: source_lib.Source, details: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
  """Returns SAEBench's metrics over all latents."""
  summary = {
      f'average_max_{part}_cosine_sim': float(
          np.mean([row[f'max_{part}_cosine_sim'] for row in details])
      )
      for part in ('encoder', 'decoder')
  }
  if source.frequency is None:
    return summary
  density = source.frequency.astype(np.float64)
  summary['frac_alive'] = float((density > 0).mean())
  for percent in (1, 10):
    often = density > percent / 100
    summary[f'freq_over_{percent}_percent'] = float(often.mean())
    summary[f'normalized_freq_over_{percent}_percent'] = float(
        density[often].sum() / max(density.sum(), 1e-30)
    )
  return summary


def _unit(rows: np.ndarray) -> np.ndarray:
  """Returns rows of unit norm; rows of zeros are unchanged."""
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norms > 0, norms, 1)


def _nearest(rows: np.ndarray) -> np.ndarray:
  """Returns each row's largest cosine with another row."""
  unit = _unit(rows)
  nearest = np.empty(len(unit), np.float32)
  for start in range(0, len(unit), _BLOCK):
    cosines = unit[start : start + _BLOCK] @ unit.T
    count = len(cosines)
    cosines[np.arange(count), start + np.arange(count)] = -1
    nearest[start : start + count] = cosines.max(axis=1)
  return nearest
