"""Our metrics equal those of SAELens and SAEBench, stored or computed live.

Ours and theirs use the same token ids, SAEs and language model in float32. The
stored metrics are the output of the peers' code, written by
`python -m experiments.goldens.make_metric_goldens`; its docstring describes the
peers' environments. Where our definition of a metric differs by design, an
evaluation has both.
"""

import functools
import importlib.util
import json
import math
import os
import pathlib
import sys
import tempfile

import numpy as np
import pytest

from jumprelu import evals, lm
from jumprelu.data import packing
from jumprelu.evals import evaluate
from jumprelu.release.formats import record
from tests.evals import peers

_TOLERANCE = 1e-4
_PEERS_PYTHON = 'JUMPRELU_PEERS_PYTHON'
_PACKAGES = {'saelens': 'sae_lens', 'saebench': 'sae_bench'}


def slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


# One evaluation serves the cases on the same rows. The evaluation of truncated
# documents is slow; it has all sites in one batch, and also measures `kl`.
_by_case = pytest.mark.parametrize(
    'case',
    [
        slow(name) if case['tokens'] == 'cut' else name
        for name, case in peers.CASES.items()
    ],
)
_by_peer = pytest.mark.parametrize('peer', peers.NAMES)


@functools.cache
def stored():
  """Returns the stored arrays; names of a peer's arrays start with its name."""
  with np.load(peers.FOLDER / 'peers.npz', allow_pickle=False) as arrays:
    return {name: arrays[name] for name in arrays.files}


@functools.cache
def goldens_of(peer):
  return json.loads((peers.FOLDER / 'peers.json').read_text('utf-8'))[peer]


def theirs(peer, case):
  numbers = goldens_of(peer)['cases'][case]
  return {k: math.nan if v is None else v for k, v in numbers.items()}


def member(name):
  case = peers.CASES[name]
  prefix = f'{case["sae"]}/'
  params = {
      key.removeprefix(prefix): value
      for key, value in stored().items()
      if key.startswith(prefix)
  }
  released = record.make_jumprelu(params, record.Origin(site=case['site']), {})
  return evaluate.EvalMember(
      released.sae,
      released.params,
      lm.make_reads(case['site'], case['layer']),
      released.meta,
  )


@functools.cache
def model():
  with tempfile.TemporaryDirectory() as folder:
    return peers.load_model(pathlib.Path(folder) / 'model')


@functools.cache
def evaluation(tokens):
  """Returns, by case on these rows, the row of results and the frequencies."""
  names = [n for n, c in peers.CASES.items() if c['tokens'] == tokens]
  evaluated = evaluate.evaluate_members(
      model(),
      [member(name) for name in names],
      held_out=peers.Rows(stored()[tokens]),
      config=evals.Config(lm_sequences=peers.CASES[names[0]]['sequences']),
      measures=('saebench', *['kl'] * (tokens == 'cut')),
  )
  both = zip(evaluated.rows, evaluated.firing_frequency, strict=True)
  return dict(zip(names, both, strict=True))


def ours(case):
  row, _ = evaluation(peers.CASES[case]['tokens'])[case]
  return {k: math.nan if v is None else v for k, v in row.items()}


def assert_same(actual, wanted, name):
  np.testing.assert_allclose(
      actual, wanted, rtol=_TOLERANCE, atol=_TOLERANCE / 10, err_msg=name
  )


@pytest.mark.slow
@_by_peer
def test_the_peers_run_the_same_language_model(peer):
  logits = stored()[f'{peer}/logits']
  assert np.abs(logits).max() > 1
  peers.check_logits(model(), stored(), logits)
  with pytest.raises(ValueError, match='not the same model'):
    peers.check_logits(model(), stored(), logits + 1e-4)


@_by_case
def test_every_number_of_saebench_is_ours_under_its_name(case):
  wanted, row = theirs('saebench', case), ours(case)
  names = {k.removeprefix('saebench_') for k in row if 'saebench_' in k}
  assert names == set(wanted)
  for name, value in wanted.items():
    assert_same(row[f'saebench_{name}'], value, name)


@_by_case
def test_every_number_of_saelens_is_ours(case):
  wanted, row = theirs('saelens', case), ours(case)
  # SAELens's is pooled and centred, like ours.
  assert_same(1 - row['fvu'], wanted.pop('explained_variance'), 'FVU')
  error = wanted.pop('mse')
  if peers.CASES[case]['tokens'] == 'cut':
    # SAEBench divides by the number of tokens in a batch; this case has one
    # batch.
    tokens = packing.keep_mask(stored()['cut']).sum()
    assert_same(row['saebench_mse'] * tokens, error, 'mse')
  # SAEBench has the same names and definitions for the other metrics.
  assert set(wanted) < set(theirs('saebench', case)) and len(wanted) == 15
  for name, value in wanted.items():
    assert_same(row[f'saebench_{name}'], value, name)


@_by_peer
@_by_case
def test_firing_frequencies_are_their_feature_densities(case, peer):
  _, frequency = evaluation(peers.CASES[case]['tokens'])[case]
  np.testing.assert_allclose(frequency, stored()[f'{peer}/{case}'], atol=1e-6)


@_by_peer
@_by_case
def test_the_regular_columns_equal_theirs(case, peer):
  wanted, row = theirs(peer, case), ours(case)
  names = {'l0': 'l0'}
  if peers.CASES[case]['tokens'] == 'cut':
    # Theirs is a mean of per-batch ratios; this case has one batch.
    names |= {
        'kl': 'kl_div_with_sae',
        'gamma': 'relative_reconstruction_bias',
    }
  else:
    names |= {
        'loss_clean': 'ce_loss_without_sae',
        'loss_spliced': 'ce_loss_with_sae',
    }
    delta = wanted['ce_loss_with_sae'] - wanted['ce_loss_without_sae']
    assert_same(row['delta_loss'], delta, 'delta_loss')
  for name, other in names.items():
    assert_same(row[name], wanted[other], name)


@_by_peer
def test_our_ablations_equal_an_sae_with_dead_latents(peer):
  row, full = ours('resid_post'), theirs(peer, 'resid_post')
  clean, loss = full['ce_loss_without_sae'], 'ce_loss_with_sae'
  for name, case, recovered in (
      ('loss_zero_ablation', 'zero', 'loss_recovered'),
      ('loss_mean_ablation', 'mean', 'loss_recovered_mean'),
  ):
    ablated = theirs(peer, case)[loss]
    assert_same(row[name], ablated, name)
    share = 1 - (full[loss] - clean) / (ablated - clean)
    assert_same(row[recovered], share, recovered)


@pytest.mark.slow
@_by_peer
def test_our_ablation_for_kl_equals_an_sae_with_dead_latents(peer):
  row = ours('cut_resid_post')
  kl, ablated = (
      theirs(peer, case)['kl_div_with_sae']
      for case in ('cut_resid_post', 'cut_zero')
  )
  assert_same(row['kl_zero_ablation'], ablated, 'kl_zero_ablation')
  assert_same(row['kl_recovered'], 1 - kl / ablated, 'kl_recovered')


@pytest.mark.parametrize(
    ('case', 'name', 'other'),
    [
        # Their ablation also puts zeros at BOS and padding, and other positions
        # attend to BOS. Our ablation acts only where the splice acts.
        ('resid_post', 'loss_zero_ablation', 'ce_loss_with_ablation'),
        slow('cut_resid_post', 'kl_zero_ablation', 'kl_div_with_ablation'),
        # These scores are relative to the ablation.
        ('resid_post', 'loss_recovered', 'ce_loss_score'),
        slow('cut_resid_post', 'kl_recovered', 'kl_div_score'),
        # Our gamma is pooled over the batches.
        ('resid_post', 'gamma', 'relative_reconstruction_bias'),
        # Theirs includes the last token of a truncated document, whose target
        # is padding.
        slow('cut_resid_post', 'loss_clean', 'ce_loss_without_sae'),
        slow('cut_resid_post', 'loss_spliced', 'ce_loss_with_sae'),
    ],
)
def test_where_definitions_differ_an_evaluation_has_both(case, name, other):
  for peer in peers.NAMES:
    wanted, row = theirs(peer, case)[other], ours(case)
    assert abs(row[name] / wanted - 1) > 5 * _TOLERANCE
    assert_same(row[f'saebench_{other}'], wanted, other)


def test_only_saebench_has_a_different_explained_variance():
  # SAEBench's variance is about zero, and its mse is divided by the number of
  # tokens in a batch. SAELens has corrected both.
  for case in peers.CASES:
    lens, bench = theirs('saelens', case), theirs('saebench', case)
    difference = lens['explained_variance'] - bench['explained_variance']
    assert abs(difference) > 1e-3 and lens['mse'] > 10 * bench['mse']
    legacy = 'explained_variance_legacy'
    assert_same(lens[legacy], bench[legacy], legacy)


def test_goldens_are_of_saes_with_nontrivial_results():
  for case in peers.CASES:
    metrics = theirs('saelens', case)
    assert metrics['ce_loss_without_sae'] < metrics['ce_loss_with_sae'] - 0.05
    if peers.CASES[case]['sae'] not in ('zero', 'mean'):
      assert 0.2 < metrics['explained_variance'] < 0.95
      assert 2 < metrics['l0'] < 20
      assert abs(metrics['relative_reconstruction_bias'] - 1) > 0.01
  rows = packing.keep_mask(stored()['ended'])
  counts = [rows[i : i + 4].sum() for i in range(0, len(rows), 4)]
  assert len(set(counts)) == len(counts) == 3


def test_goldens_are_of_these_cases_and_of_the_documented_versions():
  assert json.loads(str(stored()['cases'])) == peers.CASES
  script = (peers.EXPERIMENTS / 'goldens' / 'make_metric_goldens.py').read_text(
      'utf-8'
  )
  for peer in peers.NAMES:
    versions = goldens_of(peer)['versions']
    for name in ('sae-lens', 'sae-bench'):
      assert f'{name}=={versions[name]}' in script
    assert set(goldens_of(peer)['cases']) == set(peers.CASES)


@pytest.mark.interop
@_by_peer
def test_goldens_are_what_the_peers_compute_today(tmp_path, peer):
  python = os.environ.get(_PEERS_PYTHON)
  if python is None and importlib.util.find_spec(_PACKAGES[peer]) is None:
    pytest.skip(
        f'{_PACKAGES[peer]} is not installed: set {_PEERS_PYTHON} to an'
        ' interpreter that has it (see'
        ' experiments/goldens/make_metric_goldens.py)'
    )
  folder = tmp_path / 'model'
  peers.load_model(folder)
  numbers, arrays = peers.run_peer(
      peer,
      python=python or sys.executable,
      inputs=peers.FOLDER / 'peers.npz',
      folder=folder,
  )
  assert set(numbers['cases']) == set(peers.CASES)
  for case, live in numbers['cases'].items():
    wanted = theirs(peer, case)
    assert set(live) == set(wanted)
    for name, value in live.items():
      value = math.nan if value is None else value
      assert_same(value, wanted[name], f'{case}: {name}')
  for name, value in arrays.items():
    assert_same(value, stored()[f'{peer}/{name}'], name)
