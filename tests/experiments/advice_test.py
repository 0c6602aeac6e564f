"""The table of coefficient, L0 and dead latents, from training runs."""

import pytest

from experiments import advice
from experiments.figures import drawing
from jumprelu import errors
from jumprelu.run import main
from jumprelu.training import metrics_file
from tests import toy_run


def _lines(l0s, *, dead=0.25):
  return [
      {'l0': l0, 'fvu': l0 / 100, 'dead_share': dead, 'positions': 1000 * (i + 1)}
      for i, l0 in enumerate(l0s)
  ]  # fmt: skip


def test_l0_settles_after_its_last_value_outside_5_percent():
  falling = advice.summary(_lines([90, 50, 20.9, 20.4, 20.1, 20]))
  assert falling['settled_tokens'] == 3000
  late = advice.summary(_lines([20, 20, 30, 20, 20]))
  assert late['settled_tokens'] == 4000
  constant = advice.summary(_lines([20, 20]))
  assert constant['settled_tokens'] == 1000


def test_l0_and_fvu_are_means_over_the_last_sixteenth():
  row = advice.summary(_lines([50] * 30 + [20, 10], dead=0.5))
  assert row['l0'] == pytest.approx(15)
  assert row['fvu'] == pytest.approx(0.15)
  assert row['dead_share'] == 0.5


def test_each_sae_of_a_run_has_a_row_with_its_config(tmp_path):
  toy_run.run(tmp_path / 'a')
  rows = advice.rows_of(tmp_path / 'a')
  last = [r for r in metrics_file.read(tmp_path / 'a') if r['step'] == 13]
  assert [row['l0'] for row in rows] == [line['l0'] for line in last]
  assert {row['site'] for row in rows} == {'resid_post', 'transcoder'}
  assert {row['sparsity_coefficient'] for row in rows} == {1e-2, 4e-2}
  assert {(row['recipe'], row['batch'], row['learning_rate']) for row in rows} == {
      ('short', 32, 3e-3)
  }  # fmt: skip


def test_a_run_replaces_its_earlier_rows_in_the_table(tmp_path):
  toy_run.run(tmp_path / 'a')
  out = tmp_path / 'table.csv'
  for _ in range(2):
    argv = [str(tmp_path / 'a'), f'--out={out}']
    assert main.run_command(advice, 'python -m experiments.advice', argv) == 0
  assert len(drawing.read_csv(out)) == 4


def test_a_run_that_has_not_ended_is_refused(tmp_path):
  toy_run.run(tmp_path, stop=(3,))
  with pytest.raises(errors.MissingInputError, match='has not ended'):
    advice.rows_of(tmp_path)
