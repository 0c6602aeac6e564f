"""Runs that are stopped, damaged and resumed in one process."""

import shutil

import pytest

from jumprelu import errors
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import run_dir, train
from tests import small_run
from tests.small_state import flip_bit, largest_file

# Three blocks; the run is stopped inside the second.
STEPS, STOP = 24, 10


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('faults')


@pytest.fixture(scope='module')
def phases():
  """Returns the phases of making the job of `run`, once it is made."""
  return []


@pytest.fixture(scope='module')
def run(folder, phases):
  """Returns a function that runs or resumes a run; loads the model once."""
  config = config_lib.resolve(small_run.overrides(folder, steps=STEPS))
  job = job_lib.make_job(config, on_phase=phases.append)

  def run(out, stop=STEPS):
    directory = run_dir.RunDir(out)
    with directory.claim(config):
      return train.run(job, directory, should_stop=lambda step: step >= stop)

  return run


@pytest.fixture(scope='module')
def uninterrupted(folder, run):
  out = folder / 'uninterrupted'
  assert run(out) == train.DONE
  return out


@pytest.fixture(scope='module')
def stopped(folder, run):
  out = folder / 'stopped'
  assert run(out, STOP) == train.PREEMPTED
  assert small_run.checkpoints(out) == [8, STOP]
  return out


def test_text_and_language_model_are_announced(run, phases):
  assert [phase.partition(',')[0] for phase in phases] == [
      'reading text: text',
      'tokenising text',
      'loading and checking the language model gemma2_nano of 4 layers',
  ]


def test_peer_defects_14_15_17_a_run_resumed_inside_a_block_is_unchanged(
    tmp_path, run, stopped, uninterrupted
):
  out = tmp_path / 'resumed'
  shutil.copytree(stopped, out)
  assert run(out) == train.DONE
  # The first lines keep their times, because the run does not start again. No
  # step is missing or repeated, and no stale step is saved.
  before = (stopped / 'metrics.jsonl').read_text()
  assert (out / 'metrics.jsonl').read_text().startswith(before)
  assert small_run.metrics(out) == small_run.metrics(uninterrupted)
  assert small_run.checkpoints(out) == [8, STOP, 16, 24]
  small_run.assert_same_bits(out, uninterrupted, STEPS)


def test_damage_to_the_newest_checkpoint_costs_time_but_no_bit(
    tmp_path, run, stopped, uninterrupted
):
  out = tmp_path / 'damaged'
  shutil.copytree(stopped, out)
  flip_bit(largest_file(out / 'checkpoints' / f'{STOP}' / 'state'))
  (out / 'checkpoints' / '20').mkdir()
  assert run(out) == train.DONE
  assert (out / 'checkpoints' / f'{STOP}.corrupt').exists()
  assert small_run.metrics(out) == small_run.metrics(uninterrupted)
  small_run.assert_same_bits(out, uninterrupted, STEPS)


def test_a_run_whose_only_checkpoint_is_damaged_stops_and_changes_nothing(
    tmp_path, run, stopped
):
  out = tmp_path / 'lost'
  shutil.copytree(stopped, out)
  shutil.rmtree(out / 'checkpoints' / '8')
  flip_bit(largest_file(out / 'checkpoints' / f'{STOP}' / 'state'))
  with pytest.raises(errors.DataError, match='none of its checkpoints') as e:
    run(out)
  assert e.value.exit_code == 65
  assert small_run.checkpoints(out) == [STOP]
  assert small_run.metrics(out) == small_run.metrics(stopped)
  assert run_dir.RunDir(out).read('STATUS.json')['exit_code'] == 65
