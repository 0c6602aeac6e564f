"""Numbers at a common L0 and their uncertainties."""

import pytest

from experiments import findings
from jumprelu.plots import sheets


def _rows(variant, factor, *, seeds=(0, 1, 2), power=-0.5):
  """Returns rows on power laws, which log-log interpolation fits exactly."""
  return [
      {
          'variant': variant,
          'seed': seed,
          'l0': l0,
          'fvu': factor * (1 + 0.1 * seed) * l0**power,
      }
      for seed in seeds
      for l0 in (64, 8 + seed, 32, 16)
  ]


def test_interpolation_between_members_is_exact_for_a_power_law():
  rows = _rows('topk', 1.0, seeds=(0,))
  assert findings.at_l0(rows, 'fvu', 20) == pytest.approx(20**-0.5)
  assert findings.at_l0(rows, 'fvu', 8) == pytest.approx(8**-0.5)


@pytest.mark.parametrize('l0', [7, 65])
def test_no_metric_is_returned_outside_the_measured_range(l0):
  assert findings.at_l0(_rows('topk', 1.0, seeds=(0,)), 'fvu', l0) is None
  assert findings.at_l0([], 'fvu', l0) is None


def test_ratios_are_taken_within_a_seed():
  rows = _rows('jumprelu', 1.0) + _rows('relu', 1.5)
  table = findings.compare(
      rows, 'variant', ('jumprelu', 'relu'), 'fvu', levels=(9, 20)
  )
  assert [line[:2] for line in table] == [
      ['9', 'jumprelu'], ['9', 'relu'], ['20', 'jumprelu'], ['20', 'relu']
  ]  # fmt: skip
  # Values differ between seeds, by 10 % or more; ratios do not.
  assert [line[3] for line in table] == ['', '1.50 +- 0.00'] * 2
  assert table[2][2] == '0.246 +- 0.026'
  # The third seed, whose least L0 is 10, has no value at 9.
  assert table[0][2] == '0.350 +- 0.033'


def test_levels_that_no_seed_reaches_are_omitted():
  table = findings.compare(
      _rows('topk', 1.0),
      'variant',
      ('jumprelu', 'topk'),
      'fvu',
      levels=(20, 99),
  )
  assert table == [['20', 'topk', '0.246 +- 0.026', '']]


def test_uncertainty_is_two_standard_errors_between_seeds():
  # Three values with a standard deviation of 1: 2 / sqrt(3).
  assert findings.spread([10.0, 11.0, 12.0]) == '11.0 +- 1.2'
  assert findings.spread([0.25]) == '0.25'
  assert findings.spread([]) == ''


def test_ranges_span_the_members_of_a_group():
  rows = [
      {'site': 'a', 'gamma': 0.9, 'dead': None},
      {'site': 'b', 'gamma': 1.0, 'dead': None},
      {'site': 'a', 'gamma': 0.7, 'dead': None},
  ]
  table = findings.ranges(rows, ('site',), ('gamma', 'dead'))
  assert table == [['a', '0.7 to 0.9', ''], ['b', '1 to 1', '']]


def test_missing_figures_are_named_and_omitted(tmp_path, capsys):
  sheets.write_csv(
      [{'site': 'a', 'l0': 20.0, 'r_l0': 0.5}],
      tmp_path / 'scope_uniformity.csv',
  )
  findings.print_all(tmp_path)
  out, err = capsys.readouterr()
  assert '| a | 20 to 20 | 0.5 to 0.5 |' in out
  assert out.count('|---') == 3
  assert 'scope_uniformity' not in err
  for name in ('jumprelu_fidelity', 'scope_width', 'gated_ablations'):
    assert f'{tmp_path / name}.csv: missing' in err
