"""SAEBench's schema: categories and names, and metrics of single latents."""

import json

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release.exports import saebench
from tests.release.exports import small


def results(path, *, without=()):
  row = {'path': 'a', 'tokens_delta_loss': 1000}
  for names in saebench._METRICS.values():
    for number, name in enumerate(names):
      if name not in without:
        row[f'saebench_{name}'] = number + 0.5
  json_files.append_line(path, row)
  return path


def test_core_results_are_in_saebenchs_categories(tmp_path):
  source = small.make()
  file = results(tmp_path / 'results.jsonl')
  small.export([source], tmp_path / 'out', to='saebench', results=file)
  small.check_equal(small.only(tmp_path / 'out'), source.released)
  path = tmp_path / 'out/eval_results/core/a_eval_results.json'
  value = json.loads(path.read_text())
  assert value['eval_type_id'] == 'core'
  metrics = value['eval_result_metrics']
  assert metrics['model_performance_preservation'] == {
      'ce_loss_score': 0.5,
      'ce_loss_with_ablation': 1.5,
      'ce_loss_with_sae': 2.5,
      'ce_loss_without_sae': 3.5,
  }
  assert metrics['sparsity'] == {'l0': 0.5, 'l1': 1.5}
  assert metrics['token_stats']['total_tokens_eval_reconstruction'] == 1000
  assert value['sae_cfg_dict']['architecture'] == 'jumprelu'
  # The frequencies are 0, 1/11, ..., 1.
  assert metrics['misc_metrics']['frac_alive'] == pytest.approx(11 / 12)
  assert metrics['misc_metrics']['freq_over_10_percent'] == 10 / 12


def test_metrics_of_latents_are_those_of_the_arrays(tmp_path):
  source = small.make()
  file = results(tmp_path / 'results.jsonl')
  small.export([source], tmp_path / 'out', to='saebench', results=file)
  path = tmp_path / 'out/eval_results/core/a_eval_results.json'
  rows = json.loads(path.read_text())['eval_result_details']
  params = {k: np.float64(v) for k, v in source.released.params.items()}
  encoder, decoder = params['W_enc'].T, params['W_dec']
  for i, row in enumerate(rows):
    assert row['index'] == i
    norm = np.linalg.norm(encoder[i])
    assert row['encoder_norm'] == pytest.approx(norm, rel=1e-6)
    assert row['encoder_bias'] == pytest.approx(params['b_enc'][i], rel=1e-6)
    cosine = encoder[i] @ decoder[i] / norm / np.linalg.norm(decoder[i])
    assert row['encoder_decoder_cosine_sim'] == pytest.approx(cosine, rel=1e-4)
    others = np.delete(np.arange(12), i)
    nearest = max(
        decoder[i] @ decoder[j]
        / np.linalg.norm(decoder[i]) / np.linalg.norm(decoder[j])
        for j in others
    )  # fmt: skip
    assert row['max_decoder_cosine_sim'] == pytest.approx(nearest, abs=1e-5)
    assert row['feature_density'] == pytest.approx(i / 11, rel=1e-6)


def test_results_without_saebenchs_columns_are_refused(tmp_path):
  file = results(tmp_path / 'a.jsonl', without=['cossim'])
  with pytest.raises(errors.DataError, match='a lacks saebench_cossim; eval'):
    small.export([small.make()], tmp_path / 'o', to='saebench', results=file)
  with pytest.raises(errors.DataError, match='has no row of b'):
    sources = [small.make(path='b')]
    small.export(sources, tmp_path / 'o', to='saebench', results=file)
  assert not (tmp_path / 'o').exists()


def test_without_results_a_warning_names_the_flag(tmp_path):
  warnings = small.export([small.make()], tmp_path / 'out', to='saebench')
  assert any('--results=FILE.jsonl' in warning for warning in warnings)
