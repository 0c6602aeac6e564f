"""Ways to watch a run: phases of the start, TensorBoard, a profile."""

import struct

import pytest

from jumprelu import errors
from jumprelu.training import metrics_file, run_dir, tensorboard, train
from tests import compiled, toy_run, toy_suite


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  """Shares compiled programs, because all runs compile the same ones."""
  with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
    yield


def _watch(phases, **changes):
  return train.QUIET._replace(on_phase=phases.append, **changes)


def test_each_phase_of_a_start_is_announced_in_order(tmp_path):
  phases = []
  toy_run.run(tmp_path, watch=_watch(phases), backend='dense')
  assert phases[0] == 'estimating the scales of activations from 64 tokens'
  assert phases[1] == (
      f'{tmp_path}: new run of 13 steps, 4 SAEs in 2 groups, backend dense, first'
      ' checkpoint at step 4'
  )
  assert phases[2].startswith('compiling, then training')
  assert len(phases) == 3


def test_a_resumed_run_announces_where_it_resumes(tmp_path):
  toy_run.run(tmp_path, stop=(11,))
  phases = []
  toy_run.run(tmp_path, watch=_watch(phases))
  assert phases[0] == 'restoring the newest checkpoint'
  assert 'resuming at step 11 of 13' in phases[1]
  assert phases[1].endswith('first checkpoint at step 12')


def test_a_phase_is_announced_before_it_starts(tmp_path, monkeypatch):
  events = []
  job = toy_suite.make_job(toy_suite.make_config())
  estimate = job.stream.estimate_scales
  monkeypatch.setattr(
      job.stream,
      'estimate_scales',
      lambda: events.append('estimated') or estimate(),
  )
  toy_run.run(tmp_path, job=job, watch=_watch(events), stop=(3,))
  assert events.index('estimated') == 1
  assert events[0].startswith('estimating')


def test_a_quiet_run_prints_nothing(tmp_path, capfd):
  toy_run.run(tmp_path / 'quiet')
  assert capfd.readouterr() == ('', '')
  job = toy_suite.make_job(toy_suite.make_config())
  directory = run_dir.RunDir(tmp_path / 'printed')
  with directory.claim(job.config):
    train.run(job, directory)
  printed = capfd.readouterr().err.splitlines()
  assert printed[0].startswith('estimating')
  assert printed[-3].startswith('step 13/13 100.0%')
  assert printed[-2].startswith('  resid_post-48-jumprelu: L0 ')


def _scalars(folder):
  """Returns {(tag, step): value} of all event files, and the purged steps."""
  from tensorboardX.proto import event_pb2

  scalars, purged = {}, []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:
      # A record has its length, a checksum, the event and another checksum.
      (length,) = struct.unpack('<Q', data[:8])
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      data = data[16 + length :]
      for value in event.summary.value:
        scalars[value.tag, event.step] = value.simple_value
      if event.HasField('session_log'):
        purged.append(event.step)
  return scalars, purged


def test_tensorboard_has_the_numbers_of_metrics_read(tmp_path):
  watch = train.QUIET._replace(tensorboard=True)
  toy_run.run(tmp_path, watch=watch, stop=(11,))
  toy_run.run(tmp_path, watch=watch)
  scalars, purged = _scalars(tmp_path / 'tensorboard')
  assert purged == [1, 12]
  rows = metrics_file.read(tmp_path)
  for row in rows:
    for metric in ('l0', 'fvu', 'loss', 'dead_share', 'skipped'):
      value = scalars[f'{metric}/{row["member"]}', row['step']]
      assert value == pytest.approx(row[metric], rel=1e-6)
    rate = scalars['run/learning_rate', row['step']]
    assert rate == pytest.approx(row['learning_rate'], rel=1e-6)
  assert len(rows) == 7 * 4


def test_two_starts_within_a_second_write_two_files(tmp_path, monkeypatch):
  monkeypatch.setattr('time.time', lambda: 1_800_000_000.0)
  for step in (0, 11):
    tensorboard.Scalars(tmp_path, step=step).close()
  assert _scalars(tmp_path)[1] == [1, 12]


def test_tensorboard_refuses_remote_storage():
  with pytest.raises(errors.UserError, match='gs://a/b is in remote storage'):
    tensorboard.Scalars('gs://a/b', step=0)


def test_tensorboard_changes_no_result(tmp_path):
  toy_run.run(tmp_path / 'plain')
  watch = train.QUIET._replace(tensorboard=True, profile_steps=2)
  toy_run.run(tmp_path / 'watched', watch=watch)
  plain, watched = (
      [
          row | {'seconds': 0}
          for row in metrics_file.read(tmp_path / name, name='run')
      ]
      for name in ('plain', 'watched')
  )
  assert plain == watched


def test_a_profile_traces_segments_after_the_first(tmp_path, monkeypatch):
  events = []
  monkeypatch.setattr(
      'jax.profiler.start_trace', lambda path: events.append(path)
  )
  monkeypatch.setattr(
      'jax.profiler.stop_trace', lambda: events.append('stopped')
  )
  watch = train.QUIET._replace(profile_steps=2)
  job = toy_suite.make_job(toy_suite.make_config())
  directory = run_dir.RunDir(tmp_path)
  # Segments have 3, 1, 3, ... steps; the trace has those that end at 4 and 7.
  with directory.claim(job.config):
    train.run(
        job,
        directory,
        watch=watch,
        should_stop=lambda step: events.append(step),
    )
  assert events == [
      3, str(directory.path / 'profile'), 4, 'stopped', 7, 8, 11, 12, 13,
  ]  # fmt: skip


def test_a_profile_is_written_into_the_run_directory(tmp_path):
  toy_run.run(tmp_path, watch=train.QUIET._replace(profile_steps=100))
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
