"""Computations of single figures, from results to tables."""

import numpy as np
import pytest

from experiments import all as all_lib
from experiments import reference
from experiments.figures import (
    drawing,
    frequencies,
    jumprelu_bandwidth,
    jumprelu_histograms,
    jumprelu_kernels,
    jumprelu_target_l0,
    scope_layers,
    scope_positions,
    scope_precision,
    scope_splitting,
)
from experiments.nano import made
from experiments.suites import scales, suites
from jumprelu.plots import sheets
from jumprelu.release import formats
from tests.experiments import small_results as small


def obtain(figure):
  return {need.name: small.make(need) for need in figure.needs(small.SCALE)}


def test_histograms_count_every_latent_once():
  result = small.make(suites.ladder(small.SCALE))
  rows = frequencies.table(result, lambda row: row['width'] == 256)
  assert {row['width'] for row in rows} == {256}
  for i, member in enumerate(result.rows):
    if member['width'] != 256:
      continue
    member_rows = drawing.where(
        rows,
        seed=member['seed'],
        sparsity_coefficient=member['sparsity_coefficient'],
    )
    frequency = result.firing_frequency[i]
    for low, high, value in ((-3.6, -3.4, 3e-4), (-1.8, -1.6, 0.02)):
      (row,) = drawing.where(member_rows, log10_low=low)
      assert row['log10_high'] == high
      assert row['share'] == (frequency == value).mean()
    assert frequencies.silent(member_rows) == (frequency == 0).mean()
    assert sum(row['share'] for row in member_rows) == pytest.approx(1)


def test_steps_have_the_height_of_their_bin_and_zero_between_bins():
  rows = [
      {'log10_low': low, 'log10_high': high, 'share': share}
      for low, high, share in (
          (None, None, 0.1), (-2.0, -1.8, 0.6), (-1.4, -1.2, 0.3),
          (None, None, 0.3), (-2.0, -1.8, 0.7),
      )
  ]  # fmt: skip
  fig, axes = sheets.panels(1, 1)
  frequencies.steps(axes[0, 0], rows, 'black', '')
  (patch,) = axes[0, 0].patches
  np.testing.assert_allclose(patch.get_data().values, [0.65, 0, 0, 0.15])
  np.testing.assert_allclose(
      patch.get_data().edges, [-2, -1.8, -1.6, -1.4, -1.2]
  )
  assert fig.axes[0] is axes[0, 0]


def test_compared_members_have_about_the_same_l0():
  def member(variant, coefficient, l0):
    return {
        'variant': variant,
        'sparsity_coefficient': coefficient,
        'target_l0': 0.0,
        'l0': l0,
    }

  rows = [
      member('jumprelu', 1.0, 90.0),
      member('jumprelu', 2.0, 29.0),
      # Two seeds of one member, whose geometric mean is 30.
      member('topk', 1.0, 30 * 1.2),
      member('topk', 1.0, 30 / 1.2),
      member('topk', 2.0, 8.0),
      member('relu', 1.0, 400.0),
      member('relu', 2.0, 33.0),
      # No latent is ever active, so a ratio to this L0 is undefined.
      member('relu', 3.0, 0.0),
  ]
  assert jumprelu_histograms.nearest_members(rows) == {
      'jumprelu': (2.0, 0.0), 'topk': (1.0, 0.0), 'relu': (2.0, 0.0),
  }  # fmt: skip


def profile(tokens, errors, deltas):
  return [
      {
          'position': i + 1,
          'tokens': n,
          'l0': 4.0,
          'squared_error': error,
          'squared_error_stderr': 0.5 / np.sqrt(n) if n > 1 else None,
          'fvu': error / 8,
          'tokens_delta_loss': n,
          'delta_loss': delta,
          'delta_loss_stderr': 0.2 / np.sqrt(n) if n > 1 else None,
      }
      for i, (n, error, delta) in enumerate(
          zip(tokens, errors, deltas, strict=True)
      )
  ]


def test_positions_are_averaged_by_their_tokens():
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 30, 200)
  errors, deltas = rng.uniform(1, 2, 200), rng.normal(size=200)
  rows = scope_positions.binned(profile(tokens, errors, deltas))
  assert sum(row['positions'] for row in rows) == 200
  assert [row['position'] for row in rows[:3]] == pytest.approx([1, 2, 3])
  # Bins have equal ratios; the last one is 128 * 2**.5 to 200.
  last = slice(181, 200)
  assert rows[-1]['positions'] == 200 - 181
  for name, values, unit in (
      ('relative_error', errors, 8),
      ('delta_loss', deltas, 1),
  ):
    mean = np.average(values[last], weights=tokens[last]) / unit
    assert rows[-1][name] == pytest.approx(mean)
  # The standard deviation within each position is 0.5.
  error = 0.5 / np.sqrt(tokens[last].sum()) / 8
  assert rows[-1]['relative_error_stderr'] == pytest.approx(error)
  whole = np.average(
      [row['relative_error'] for row in rows],
      weights=[row['tokens'] for row in rows],
  )
  fvu = (tokens * errors).sum() / (8 * tokens.sum())
  assert whole == pytest.approx(fvu), 'the average is not the FVU'


def test_a_bin_of_one_token_has_no_error_and_an_empty_bin_no_value():
  positions = profile([1, 5], [1.0, 2.0], [0.3, 0.4])
  positions[1] |= {'tokens_delta_loss': 0, 'delta_loss': None}
  first, second = scope_positions.binned(positions)
  assert first['delta_loss'] == 0.3 and first['delta_loss_stderr'] is None
  assert second['delta_loss'] is None
  assert second['relative_error_stderr'] > 0


def test_precisions_are_the_four_pairs_of_dtypes():
  rows = scope_precision.table(obtain(scope_precision))
  kinds = {(row['lm_dtype'], row['sae_dtype']) for row in rows}
  assert len(kinds) == 4
  costs = [row for row in rows if row.get('rounding') is not None]
  assert {row['sae_dtype'] for row in costs} == {'bfloat16'}


def test_only_pairs_with_equal_coefficients_are_compared():
  (result,) = results = list(obtain(scope_splitting).values())
  rows = scope_splitting.table({'ladder': result})
  widths = drawing.where(rows, kind='widths')
  # 2 coefficients x 2 seeds x 2 seeds.
  assert len(results) == 1 and len(widths) == 8
  assert {(row['from_width'], row['width']) for row in widths} == {(128, 256)}
  seeds = drawing.where(rows, kind='seeds')
  assert len(seeds) == 4
  assert all(row['from_seed'] < row['seed'] for row in seeds)
  assert all(row['from_width'] == row['width'] for row in seeds)


def test_the_ratio_is_the_reached_l0_over_the_target_l0():
  rows = jumprelu_target_l0.table(obtain(jumprelu_target_l0))
  assert {row['variant'] for row in rows} == {'jumprelu'}
  assert {row['site'] for row in rows} == {
      'resid_post',
      'mlp_out',
      'attn_heads',
  }
  targeted = drawing.where(rows, kind='target')
  assert {row['target_l0'] for row in targeted} == set(small.SCALE.target_l0)
  for row in targeted:
    assert row['ratio'] == row['l0'] / row['target_l0']
  others = drawing.where(rows, kind='coefficient')
  assert others and all(row['ratio'] is None for row in others)


def test_compared_members_were_trained_on_equally_many_tokens():
  for figure in all_lib.FIGURES:
    for need in figure.needs(scales.NANO):
      suite = need.suite if isinstance(need, suites.Reading) else need
      tokens = suite.config['tokens']
      assert (tokens != scales.NANO.base['tokens']) == (
          suite.name == 'headline'
      )
    names = {need.name for need in figure.needs(scales.NANO)}
    assert len(names) == 1 or 'headline' not in names, figure.__name__


def test_rows_have_the_bandwidths_of_their_suites():
  rows = jumprelu_bandwidth.table(obtain(jumprelu_bandwidth))
  assert {row['bandwidth'] for row in rows} == set(small.SCALE.bandwidths)


def test_published_l0s_are_added_for_rows_of_the_same_model(monkeypatch):
  calls = []

  def l0s(repository, *, layer, width):
    calls.append((repository, layer, width))
    return 22, 41

  monkeypatch.setattr(formats, 'l0s', l0s, raising=False)
  row = {
      'model': 'gemma2_2b',
      'site': 'resid_post',
      'layer': 12,
      'width': 16384,
      'variant': 'jumprelu',
      'l0': 30.0,
      'fvu': 0.2,
      'delta_loss': 0.1,
  }
  others = ({'model': 'gemma2_nano'}, {'site': 'transcoder'})
  rows = [row, row, *(row | other for other in others)]
  published = reference.released(rows)
  assert calls == [('gemma-scope-2b-pt-res', 12, 16384)]
  assert [r['l0'] for r in published] == [22, 41]
  fig = scope_layers.figure([row, *published])
  (marks,) = [
      line for line in fig.axes[0].lines if line.get_label() == '_released'
  ]
  np.testing.assert_array_equal(marks.get_xdata(), [22, 41])


def test_suites_of_bandwidths_and_kernels_have_different_configs():
  needs = {
      need.name: need.suite if isinstance(need, suites.Reading) else need
      for figure in (jumprelu_bandwidth, jumprelu_kernels)
      for need in figure.needs(scales.NANO)
  }
  trained = {suite.name: suite.config for suite in needs.values()}
  digests = {repr(made.resolve(config)) for config in trained.values()}
  assert len(digests) == len(trained) == len(needs) - 1
