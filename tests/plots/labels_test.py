"""Names in legends contain only the parts that differ."""

import pytest

from jumprelu.plots import labels


@pytest.mark.parametrize(
    'paths, names',
    [
        (['runs/a'], ['a']),
        (['runs/a/'], ['a']),
        (['runs/a', 'runs/b'], ['a', 'b']),
        (['x/a/release', 'x/b/release'], ['a', 'b']),
        (['a/run', 'b/c/run'], ['a', 'b/c']),
        (['a', 'a/run'], ['a', 'a/run']),
        (['releases/a', 'a.jsonl'], ['releases/a', 'a.jsonl']),
        (['/home/me/a/release', 'runs/b'], ['a/release', 'runs/b']),
        (['/x/1/a/b', 'y/2/a/b/'], ['x/1', 'y/2']),
        (['/x/a/b/c', 'y/a/b/d'], ['b/c', 'b/d']),
        (['/runs/a/1', '/runs/b/2', '/runs/b/1'], ['a/1', 'b/2', 'b/1']),
    ],
)
def test_runs_are_named_by_the_parts_that_differ(paths, names):
  assert labels.run_names(paths) == names


@pytest.mark.parametrize(
    'row, text',
    [
        ({'target_l0': 20.0, 'sparsity_coefficient': 1.0}, 'L0 → 20'),
        (
            {'target_l0': 0.0, 'sparsity_coefficient': 2.5e-3},
            r'$\lambda = 2.5\cdot 10^{-3}$',
        ),
        ({'sparsity_coefficient': 1e-3}, r'$\lambda = 10^{-3}$'),
        ({'sparsity_coefficient': 0.0}, r'$\lambda = 0$'),
        ({'sparsity_coefficient': None, 'target_l0': None}, ''),
    ],
)
def test_a_request_is_the_target_or_else_the_coefficient(row, text):
  assert labels.request(row) == text


def test_a_curve_is_named_by_its_columns():
  row = {'run': 'a', 'layer': 3, 'width': 16384, 'variant': 'jumprelu'}
  columns = labels.differing([row, row | {'width': 4, 'run': 'b'}], list(row))
  assert columns == ['run', 'width']
  assert labels.joined(row, columns) == 'a · width 16,384'
  assert labels.joined(row, ['layer', 'variant']) == 'layer 3 · JumpReLU'


def test_numbers_are_listed_and_ranges_have_two_ends():
  assert labels.listed('layer', [2, 2]) == 'layer 2'
  assert labels.listed('layer', [5, 2, 5]) == 'layers 2, 5'
  assert labels.between([4000]) == '4,000'
  assert labels.between([4000, 7, 9]) == '7 to 4,000'
