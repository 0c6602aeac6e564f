"""Rows as JSON lines, Parquet and a table."""

import json

import numpy as np
from pyarrow import parquet
import pytest

from jumprelu.evals import results

ROWS = [
    results.make_row(
        {
            'site': 'resid_post',
            'layer': 2,
            'l0': np.float64(31.5),
            'delta_loss_stderr': np.float32('nan'),
            'tokens_evaluated': np.int64(2**40),
        }
    ),
    results.make_row(
        {
            'site': 'mlp_out',
            'layer': 2,
            'l0': np.array(3.0),
            'delta_loss_stderr': np.inf,
            'seed': 1,
        }
    ),
]


def test_non_finite_numbers_become_none_and_arrays_plain_numbers():
  assert ROWS[0]['delta_loss_stderr'] is None
  assert ROWS[1]['delta_loss_stderr'] is None
  assert ROWS[0]['tokens_evaluated'] == 2**40
  assert type(ROWS[1]['l0']) is float


def test_written_rows_are_read_back(tmp_path):
  path = tmp_path / 'new' / 'results.jsonl'
  results.write(ROWS, path)
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines] == ROWS
  table = parquet.read_table(path.with_suffix('.parquet')).to_pylist()
  assert table[0]['tokens_evaluated'] == 2**40 and table[1]['seed'] == 1
  assert table[0]['seed'] is None
  assert sorted(p.name for p in path.parent.iterdir()) == [
      'results.jsonl',
      'results.parquet',
  ]


def test_the_table_leaves_out_empty_columns():
  header = results.table(ROWS).split('\n')[1].split()
  assert header == ['site', 'L0']


def test_what_all_rows_share_is_a_line_above_the_table():
  rows = [
      {'site': 'mlp_out', 'layer': 2, 'width': w, 'variant': 'gated', 'l0': 3}
      for w in (8, 16)
  ]
  above, header, *lines = results.table(rows).split('\n')
  assert above == 'layer 2, variant gated'
  assert header.split() == ['site', 'width', 'L0']
  assert [line.split()[1] for line in lines] == ['8', '16']
  # A single row has all its columns.
  header, _ = results.table(rows[:1]).split('\n')
  assert header.split() == ['site', 'layer', 'width', 'variant', 'L0']


def test_a_high_dense_share_of_a_narrow_sae_is_explained():
  row = {'site': 'mlp_out', 'width': 256, 'dense_share': 0.63, 'l0': 30.0}
  *_, note = results.table([row]).split('\n')
  assert note.startswith('dense: high where L0 is more than a tenth of')
  for wide in (row | {'width': 512}, row | {'dense_share': None}):
    assert 'dense:' not in results.table([wide])


def test_a_row_shows_its_target_or_its_coefficient():
  rows = [
      {'site': 'a', 'sparsity_coefficient': 1.0, 'target_l0': 20.0, 'l0': 21.0},
      {'site': 'b', 'sparsity_coefficient': 0.002, 'target_l0': 0.0, 'l0': 9.0},
      {'site': 'c', 'sparsity_coefficient': 0.5, 'target_l0': 20.0, 'l0': 20.0},
  ]
  header, *lines = results.table(rows).split('\n')
  assert header.split() == ['site', 'coefficient', 'target', 'L0', 'L0']
  assert [line.split() for line in lines] == [
      ['a', '-', '20', '21'],
      ['b', '0.002', '-', '9'],
      ['c', '0.5', '20', '20'],
  ]
  assert 'target' not in results.table(rows[1:2])
  assert 'coefficient' not in results.table(rows[:1])


def test_the_table_marks_targets_that_are_missed_by_more_than_a_fifth():
  rows = [
      {'site': 'resid_post', 'target_l0': 10.0, 'l0': l0}
      for l0 in (8.1, 11.9, 12.1, 71.0, None)
  ]
  lines = results.table(rows).split('\n')
  assert ['missed' in line for line in lines] == [
      False, False, False, True, True, False, True,
  ]  # fmt: skip
  assert lines[4].split() == ['resid_post', '10', 'missed', '71']
  assert lines[-1] == 'missed: the L0 is more than 20% off the target L0'
  assert 'missed' not in results.table(rows[:2])


@pytest.mark.parametrize('l0, off', [(0, True), (52, True), (53, False)])
def test_a_released_l0_that_is_far_from_the_measured_one_is_marked(l0, off):
  text = results.table([{'site': 'mlp_out', 'released_l0': 105, 'l0': l0}])
  assert ('105 off' in text) == off
  assert ('differs by more than 2 times' in text) == off
