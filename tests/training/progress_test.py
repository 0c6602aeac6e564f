"""Counters, speed, reports, and the conditions under which a run fails."""

import dataclasses

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.training import progress
from jumprelu.training import step as step_lib
from tests import toy_suite


def _metrics(
    skipped, *, kept=(30, 31), l0=((1.0, 2.0), (3.0, 6.0)), frozen=None
):
  steps = len(skipped)
  values = np.asarray(l0)[:steps]
  group = {
      'l0': values,
      'fvu': values / 10,
      'dead_share': np.zeros_like(values),
      'loss': values + 1,
      'skipped': np.asarray(skipped),
      'frozen': np.zeros((steps, 2), int) if frozen is None else frozen,
  }
  ones = np.ones(steps, np.float32)
  return step_lib.Metrics(
      {'g': group}, np.asarray(kept, np.int32)[:steps], ones, ones / 2
  )


def _groups():
  """Returns one group `g` of two members."""
  group = toy_suite.make_groups(toy_suite.make_config())[0]
  return [dataclasses.replace(group, name='g')]


def _reporter(counts=None, lines=None, seen=None, **kwargs):
  return progress.Reporter(
      counts or progress.Counts(),
      toy_suite.make_config(),
      _groups(),
      write=(lines if lines is not None else []).append,
      on_progress=(seen if seen is not None else []).append,
      **kwargs,
  )


def test_a_segment_is_read_when_the_next_one_is_dispatched():
  lines = []
  reporter = _reporter(lines=lines)
  reporter.add(2, _metrics([[0, 0]] * 2), dropped=0)
  assert not lines
  reporter.add(4, _metrics([[0, 0]] * 2), dropped=0)
  assert [line['step'] for line in lines] == [2]
  reporter.flush()
  reporter.flush()
  assert [line['step'] for line in lines] == [2, 4]


def test_a_line_of_metrics_holds_means_and_last_counters():
  lines = []
  counts = progress.Counts(step=10, tokens_trained=2**31)
  reporter = _reporter(counts, lines)
  reporter.add(12, _metrics([[0, 1], [0, 2]]), dropped=0)
  reporter.flush()
  (line,) = lines
  assert line['groups']['g']['l0'] == [2.0, 4.0]
  assert line['groups']['g']['skipped'] == [0, 2]
  assert line['tokens_trained'] == 2**31 + 61  # above the maximum of int32
  assert line['positions'] == 12 * 32


def test_a_line_has_the_learning_rate_and_names_its_factors_and_members():
  lines = []
  metrics = _metrics([[0, 0]])._replace(
      learning_rate=np.full(1, 0.25, np.float32)
  )
  reporter = _reporter(lines=lines)
  reporter.add(1, metrics, dropped=0)
  reporter.flush()
  (line,) = lines
  assert line['learning_rate'] == 0.25 * 3e-3  # optim.learning_rate
  assert line['sparsity_factor'] == 0.5
  assert 'sparsity' not in line  # It marks lines of older versions.
  names = ['lambda_0.01-seed_0', 'lambda_0.04-seed_0']
  assert line['members'] == {
      'g': [f'resid_post-48-jumprelu-{name}' for name in names]
  }


def test_the_last_progress_covers_all_members_at_the_last_step():
  seen = []
  reporter = _reporter(progress.Counts(step=11), seen=seen)
  reporter.add(13, _metrics([[0, 0]] * 2), dropped=0)
  reporter.flush()
  (last,) = seen
  assert (last.step, last.total_steps) == (13, 13)
  (group,) = last.groups
  assert group.name == 'g' and group.targets == (0, 0)
  assert group.l0 == (2.0, 4.0)
  np.testing.assert_allclose(group.fvu, (0.2, 0.4))
  assert group.loss == (3.0, 5.0)


def test_the_first_eta_includes_the_forward_pass_of_the_block():
  # A block of 8 batches takes 7 s: 3 s for the forward pass and 0.5 s a batch.
  # Compilation takes 20 s.
  speed = progress.Speed(0, 8, now=100.0)

  def time_at(step):
    return 100 + 20 + 3 * -(-step // 8) + step / 2

  for step in (2, 4, 6, 8):
    rate, is_bound = speed.update(step, time_at(step))
    assert is_bound and rate < 8 / 7
  for step in range(10, 40, 2):
    rate, is_bound = speed.update(step, time_at(step))
    assert not is_bound and rate == pytest.approx(8 / 7)


def test_the_speed_of_a_resumed_run_is_that_of_whole_blocks():
  speed = progress.Speed(12, 8, now=0.0)
  rates = [speed.update(step, step * 2.0) for step in (14, 16, 20, 22, 24)]
  assert [is_bound for _, is_bound in rates] == [True] * 3 + [False] * 2
  assert [rate for rate, _ in rates][3:] == [0.5, 0.5]


def test_a_run_fails_after_ten_steps_in_a_row_that_all_members_skipped():
  reporter = _reporter()
  for step in range(1, 10):
    reporter.add(step, _metrics([[step, step]]), dropped=0)
  reporter.add(10, _metrics([[9, 10]]), dropped=0)  # Not skipped by all.
  for step in range(11, 21):
    reporter.add(step, _metrics([[step - 1, step]]), dropped=0)
  with pytest.raises(
      errors.NumericalError, match='step 20: all members skipped 10 steps'
  ):
    reporter.flush()


def test_a_skip_in_the_first_step_after_a_start_is_counted():
  reporter = _reporter()
  for step in range(1, 11):
    reporter.add(step, _metrics([[step, step]]), dropped=0)
  with pytest.raises(
      errors.NumericalError, match='step 10: all members skipped 10 steps'
  ):
    reporter.flush()


def test_skips_before_a_resumed_run_are_not_counted_again():
  reporter = _reporter(skipped={'g': np.array([70, 80])})
  # The first step is taken, the next nine are skipped.
  for step in range(1, 11):
    skips = [[69 + step, 79 + step]]
    reporter.add(step, _metrics(skips), dropped=0)
  reporter.flush()
  reporter.add(11, _metrics([[80, 90]]), dropped=0)
  with pytest.raises(
      errors.NumericalError, match='step 11: all members skipped 10 steps'
  ):
    reporter.flush()


def test_only_members_that_are_not_frozen_decide_whether_a_run_is_stuck(caplog):
  counts = progress.Counts()
  reporter = _reporter(counts)
  frozen = np.array([[1, 0]])
  for step in range(1, 11):
    reporter.add(step, _metrics([[step, 0]], frozen=frozen), dropped=0)
  for step in range(11, 21):
    reporter.add(step, _metrics([[step, step - 10]], frozen=frozen), dropped=0)
  with pytest.raises(progress.StuckError, match='step 20: all members'):
    reporter.flush()
  name = 'resid_post-48-jumprelu-lambda_0.01-seed_0'
  assert counts.frozen == (name,)
  assert caplog.text.count(f'step 1: {name} is frozen') == 1


def test_a_run_whose_members_are_all_frozen_is_stuck():
  reporter = _reporter()
  reporter.add(1, _metrics([[1, 1]], frozen=np.ones((1, 2), int)), dropped=0)
  reporter.add(2, _metrics([[2, 2]], frozen=np.ones((1, 2), int)), dropped=0)
  with pytest.raises(progress.StuckError):
    reporter.flush()


def test_a_frozen_member_of_a_resumed_run_is_left_out_of_the_progress(caplog):
  seen = []
  name = 'resid_post-48-jumprelu-lambda_0.04-seed_0'
  counts = progress.Counts(step=12, frozen=(name,))
  reporter = _reporter(counts, seen=seen)
  metrics = _metrics([[0, 3]], l0=[[7.0, np.nan]], frozen=np.array([[0, 1]]))
  reporter.add(13, metrics, dropped=0)
  reporter.flush()
  (group,) = seen[-1].groups
  assert group.l0 == (7.0,) and group.frozen == 1
  assert group.line().endswith('| 1 frozen')
  assert not caplog.text


def test_diagnoses_of_a_member_are_reported_once(monkeypatch):
  monkeypatch.setattr(progress, '_SECONDS', -1.0)
  seen = []
  reporter = _reporter(progress.Counts(step=4), seen=seen)
  for step in range(5, 8):
    metrics = _metrics([[0, 0]], l0=[[0.1, 9.0]])
    metrics = metrics._replace(sparsity=np.ones(1, np.float32))
    reporter.add(step, metrics, dropped=0)
  reporter.flush()
  notes = [note for progress in seen for note in progress.notes]
  (note,) = notes
  assert 'lambda_0.01-seed_0: L0 is 0.1: hardly any latent fires' in note
  assert f'  note: {note}' in seen[0].lines()


def test_a_run_fails_if_a_block_loses_too_many_rows():
  reporter = _reporter()
  reporter.add(1, _metrics([[0, 0]]), dropped=16)
  reporter.add(2, _metrics([[0, 0]]), dropped=17)
  with pytest.raises(errors.DataError, match='17 of 128 positions'):
    reporter.flush()


def test_dropped_rows_are_counted_once_per_block():
  counts = progress.Counts()
  reporter = _reporter(counts)
  for step in (1, 2, 3, 4, 5):
    reporter.add(step, _metrics([[0, 0]]), dropped=3 if step < 5 else 2)
  reporter.flush()
  assert counts.rows_dropped == 3  # Block 2 is unfinished.
