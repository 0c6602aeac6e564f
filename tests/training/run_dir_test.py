"""Run directories: the configs that may use them, and their files."""

import json
import math
import pathlib

import pytest

from jumprelu import errors
from jumprelu.files import dotted, durable
from jumprelu.training import checkpoint, job, run_dir, train
from tests import toy_run, toy_suite


def _claim(path, /, **changes):
  directory = run_dir.RunDir(path)
  with directory.claim(toy_suite.make_config(**changes)):
    return directory


def test_a_run_of_the_same_config_may_claim_the_directory_again(tmp_path):
  _claim(tmp_path / 'new' / 'run')
  directory = _claim(tmp_path / 'new' / 'run')
  assert directory.read_config() == toy_suite.make_config()


def test_a_directory_without_results_may_be_claimed_by_another_config(tmp_path):
  _claim(tmp_path, data='misspelt')
  assert _claim(tmp_path).read_config() == toy_suite.make_config()


def test_another_config_is_refused_and_the_differences_are_named(tmp_path):
  _claim(tmp_path).write_suite({})
  with pytest.raises(errors.UserError) as e:
    _claim(tmp_path, layer=3, optim__learning_rate=0.5)
  assert e.value.exit_code == 2
  assert 'layer was 2, is 3' in str(e.value)
  assert '--extend' not in str(e.value)
  assert 'optim.learning_rate was 0.003, is 0.5' in str(e.value)
  assert run_dir.RunDir(tmp_path).read_config() == toy_suite.make_config()
  with pytest.raises(
      errors.UserError, match='tokens was 424, is 999.*--extend'
  ):
    _claim(tmp_path, tokens=999)


def test_paths_of_text_and_model_may_change_but_not_their_names(tmp_path):
  old = {'data': 'd/a.jsonl,tokens:b', 'model': 'weights', 'layer': 1}
  new = {'data': '/moved/a.jsonl,tokens:/moved/b', 'model': '/moved/weights'}
  before = toy_suite.make_config(layer=1)
  before, after = dotted.replace(before, old), dotted.replace(before, new)
  directory = run_dir.RunDir(tmp_path)
  with directory.claim(before):
    directory.write_suite({})
  with directory.claim(after):
    # Until their content is compared, config.json has the former paths.
    assert directory.read_config() == before
    directory.write_config(after)
  assert directory.read_config() == after
  for changes in ({'data': 'python'}, {'data': 'tfds:x'}):
    with pytest.raises(errors.UserError, match='data was'):
      with directory.claim(dotted.replace(after, changes)):
        pass
  with directory.claim(dotted.replace(after, {'model': 'gemma2_nano'})):
    pass


def test_soft_fields_may_change(tmp_path):
  _claim(tmp_path)
  changes = {
      'mesh__tensor': 2,
      'checkpoint__keep': 7,
      'stream__batches_per_dispatch': 4,
      'corpus__cache_dir': 'elsewhere',
      'backend': 'oracle',
  }
  directory = _claim(tmp_path, **changes)
  assert directory.read_config().checkpoint.keep == 7


def test_a_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('')
  with pytest.raises(errors.UserError, match='it holds thesis.tex'):
    _claim(tmp_path)


def test_a_run_that_was_killed_at_its_first_file_may_start_again(tmp_path):
  # Another process of the same run may see this state too.
  (tmp_path / 'config.json.partial').write_text('{')
  assert _claim(tmp_path).read_config()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='not a directory'):
    _claim(tmp_path / 'file')
  with pytest.raises(errors.UserError, match='cannot write'):
    _claim(tmp_path / 'file' / 'below')


def test_two_processes_do_not_train_in_one_directory(tmp_path):
  config = toy_suite.make_config()
  with run_dir.RunDir(tmp_path).claim(config):
    with pytest.raises(errors.UserError, match='another process'):
      _claim(tmp_path)
  _claim(tmp_path)


def test_non_finite_numbers_become_null_in_metrics(tmp_path):
  directory = _claim(tmp_path)
  directory.append_metrics({'step': 1, 'l0': [1.5, math.nan, math.inf]})
  directory.append_metrics({'step': 2, 'l0': [2.5]})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['l0'] for line in lines] == [
      [1.5, None, None],
      [2.5],
  ]


def test_metrics_after_the_checkpoint_are_set_aside(tmp_path):
  directory = _claim(tmp_path)
  for step in (1, 2, 3):
    directory.append_metrics({'step': step})
  directory.truncate_metrics(2)
  directory.append_metrics({'step': 3, 'again': True})
  assert (tmp_path / 'metrics.jsonl').read_text() == (
      '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'
  )
  assert (tmp_path / 'metrics.discarded.jsonl').read_text() == '{"step": 3}\n'


def test_damaged_and_missing_lines_of_metrics_are_reported(tmp_path, caplog):
  directory = _claim(tmp_path)
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 4}\n{"step": 8, "a": "\xff"}\n{"st\xffep": 12}\n')
  directory.truncate_metrics(12)
  assert len(path.read_text().splitlines()) == 1
  assert 'ends at step 4, before the checkpoint of step 12' in caplog.text


def test_metrics_are_on_the_disk_before_a_checkpoint(tmp_path, monkeypatch):
  order = []
  sync, save = durable.sync, checkpoint.Checkpointer.save

  def record_sync(path):
    order.append(pathlib.Path(path).name)
    sync(path)

  def record_save(self, step, *args, **kwargs):
    order.append(step)
    return save(self, step, *args, **kwargs)

  monkeypatch.setattr(durable, 'sync', record_sync)
  monkeypatch.setattr(checkpoint.Checkpointer, 'save', record_save)
  toy_run.run(tmp_path)
  steps = [i for i, item in enumerate(order) if item != 'metrics.jsonl']
  assert steps and all(order[i - 1] == 'metrics.jsonl' for i in steps)


def test_done_needs_the_last_checkpoint_too(tmp_path):
  directory = _claim(tmp_path)
  directory.write_status('done', step=13)
  assert not directory.is_done(13)
  (tmp_path / 'checkpoints' / '13').mkdir(parents=True)
  assert directory.is_done(13)
  directory.write_status('preempted', step=13)
  assert not directory.is_done(13)


def test_the_environment_names_versions_and_devices():
  env = run_dir.environment()
  assert env['devices'] == 8 and env['platform'] == 'cpu'
  assert {'jax', 'flax', 'gemma', 'grain'} <= env['versions'].keys()


def test_a_remote_path_stays_remote():
  assert str(run_dir.RunDir('gs://a/b').checkpoints) == 'gs://a/b/checkpoints'


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert str(run_dir.RunDir('a').path) == str(tmp_path / 'a')


def _start(path, step):
  _claim(path).note_start(step)


def _fail(path, step, error):
  directory = _claim(path)
  directory.note_start(step)
  directory.note_end(error)


def test_a_run_that_fails_three_times_at_one_step_is_given_up(tmp_path):
  for error in (ZeroDivisionError(), RuntimeError(), errors.DataError()):
    _fail(tmp_path, 8, error)
  with pytest.raises(errors.NumericalError, match='3 times .* step 8') as e:
    _start(tmp_path, 8)
  assert e.value.exit_code == 70
  (tmp_path / 'starts.json').unlink()
  _start(tmp_path, 8)


def test_a_start_at_a_later_step_resets_the_count(tmp_path):
  for step in (0, 0, 0, 8, 8, 16, 16, 16):
    _fail(tmp_path, step, RuntimeError())


@pytest.mark.parametrize(
    'error',
    [
        None,  # kill -9
        KeyboardInterrupt(),
        errors.Interrupted(errors.EXIT_PREEMPTED),
        errors.FullDiskError(),
        OSError(28, 'No space left on device'),
    ],
)
def test_ends_from_outside_do_not_use_up_the_starts(tmp_path, error):
  for _ in range(5):
    _start(tmp_path, 8)
    if error:
      _fail(tmp_path, 8, error)
  for _ in range(2):
    _fail(tmp_path, 8, RuntimeError())
  _start(tmp_path, 8)


def test_a_failure_keeps_the_step_of_an_earlier_start(tmp_path):
  directory = _claim(tmp_path)
  directory.write_failure(errors.DataError('damaged'), {'step': 0})
  status = directory.read('STATUS.json')
  assert (status['state'], status['step'], status['exit_code']) == (
      'failed',
      0,
      65,
  )
  assert status['error'] == 'damaged'
  directory.write_status('preempted', step=696, exit_code=42)
  directory.write_failure(KeyboardInterrupt(), {'step': 0})
  status = directory.read('STATUS.json')
  assert (status['step'], status['exit_code']) == (696, 130)
  assert status['state'] == 'preempted'
  directory.write_failure(errors.Interrupted(42), {'step': 0})
  assert directory.read('STATUS.json')['exit_code'] == 42
  assert status['error'] == 'interrupted'


@pytest.mark.parametrize('name', ['STATUS.json', 'starts.json'])
@pytest.mark.parametrize('content', [b'', b'{"step": 8, "cou', b'\xff\xfe'])
def test_a_run_goes_on_without_damaged_advisory_files(tmp_path, name, content):
  _start(tmp_path, 8)
  directory = _claim(tmp_path)
  directory.write_status('done', step=8)
  (tmp_path / name).write_bytes(content)
  assert not directory.is_done(8)
  _start(tmp_path, 8)
  directory.write_failure(errors.DataError('damaged'), {'step': 0})
  assert directory.read('STATUS.json')['exit_code'] == 65


@pytest.mark.parametrize('content', [b'', b'{"format', b'\xff\xfe', b'[1]'])
def test_a_damaged_config_is_damaged_data_with_its_path(tmp_path, content):
  _start(tmp_path, 8)
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match='config.json: .*not (a )?JSON'):
    _claim(tmp_path)


def test_a_flipped_bit_of_the_suite_is_refused(tmp_path):
  directory = run_dir.RunDir(tmp_path)
  directory.write_suite({'scales': {'layer_2.resid_post': 0.5}})
  assert directory.read_suite() == {'scales': {'layer_2.resid_post': 0.5}}
  path = tmp_path / 'suite.json'
  path.write_text(path.read_text().replace('0.5', '0.7'))
  with pytest.raises(errors.DataError, match='suite.json: damaged or edited'):
    directory.read_suite()


@pytest.mark.parametrize(
    'error, code',
    [
        (errors.MissingInputError('no text'), 66),
        (OSError(28, 'No space left on device'), 75),
        (RuntimeError('write() failed: No space left on device'), 75),
        (PermissionError(13, 'Permission denied'), 2),
        (ZeroDivisionError('a bug'), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_failure_of_the_set_up_is_in_the_status(
    tmp_path, monkeypatch, error, code
):
  def fail(*unused_args, **unused_kwargs):
    raise error

  monkeypatch.setattr(job, 'make_job', fail)
  with pytest.raises(type(error)):
    train.train(toy_suite.make_config(), tmp_path, watch=train.QUIET)
  status = run_dir.RunDir(tmp_path).read('STATUS.json')
  state = 'preempted' if code == 130 else 'failed'
  assert (status['state'], status['exit_code']) == (state, code)
  assert status['total_steps'] == toy_suite.make_config().steps


def test_starts_that_a_user_interrupts_do_not_count(tmp_path, monkeypatch):
  def interrupt(job, directory, *unused_args, **unused_kwargs):
    directory.note_start(0)
    raise KeyboardInterrupt

  config = toy_suite.make_config()
  # Only the config is used.
  made = tuple.__new__(job.Job, (config, (), None, '', None, '', ''))
  monkeypatch.setattr(train, '_run', interrupt)
  for _ in range(run_dir.MAX_FAILURES + 2):
    directory = run_dir.RunDir(tmp_path)
    with directory.claim(config), pytest.raises(KeyboardInterrupt):
      train.run(made, directory)
  status = run_dir.RunDir(tmp_path).read('STATUS.json')
  assert (status['exit_code'], status['error']) == (130, 'interrupted')


def test_damaged_lines_of_metrics_are_set_aside(tmp_path):
  directory = _claim(tmp_path)
  nested = b'[' * 10**5
  lines = [
      b'{"step": 1}',
      b'{"step": 1, "a": "\xff"}',
      nested,
      b'{"step": "1"}',
  ]
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join(lines) + b'\n')
  directory.truncate_metrics(2)
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1}\n'
  discarded = (tmp_path / 'metrics.discarded.jsonl').read_text('utf-8')
  assert len(discarded.splitlines()) == 3
