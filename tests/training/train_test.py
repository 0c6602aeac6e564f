"""Runs: their first step, the state they keep, and refused starts."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.data import packing
from jumprelu.files import json_files
from jumprelu.training import checkpoint, load_run, run_dir, suite, train
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from tests import compiled, small_state, toy_suite
from tests.toy_run import run as _run
from tests.toy_run import state as _state

# 13 steps: segments of 3, 1, 3, 1, 3, 1 steps in blocks of 4, and 1 at the end.
_STEPS = 13


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  """Shares compiled programs, because all runs compile the same ones."""
  with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
    yield


def _lines(out, name='metrics.jsonl'):
  text = (pathlib.Path(out) / name).read_text()
  return [{**json.loads(line), 'seconds': 0} for line in text.splitlines()]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Returns the directory of an uninterrupted run."""
  out = tmp_path_factory.mktemp('runs') / 'whole'
  outcome, seen = _run(out)
  assert outcome == train.DONE
  assert seen[-1].step == _STEPS
  return out


@pytest.mark.parametrize('stops', [(4,), (3, 7, 11), (12,)])
def test_an_interrupted_run_equals_an_uninterrupted_one(stops, tmp_path, whole):
  for stop in stops:
    outcome, _ = _run(tmp_path, stop=stops)
    assert outcome == train.PREEMPTED
    assert _state(tmp_path)[1]['step'] == stop
  assert _run(tmp_path)[0] == train.DONE
  (state, meta), (expected, other) = _state(tmp_path), _state(whole)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert _lines(tmp_path) == _lines(whole)
  assert meta['scales'] == other['scales']
  assert meta['counts']['tokens_trained'] == other['counts']['tokens_trained']


def test_every_segment_has_one_line_without_a_gap_in_steps(whole):
  steps = [line['step'] for line in _lines(whole)]
  assert steps == [3, 4, 7, 8, 11, 12, 13]
  assert [line['positions'] for line in _lines(whole)] == [
      32 * step for step in steps
  ]


def test_a_crash_loses_only_the_steps_since_the_last_block(tmp_path, whole):
  def crash(step):
    if step == 11:
      raise RuntimeError('lost a peer')
    return False

  job = toy_suite.make_job(toy_suite.make_config())
  directory = run_dir.RunDir(tmp_path)
  with pytest.raises(RuntimeError), directory.claim(job.config):
    train.run(job, directory, should_stop=crash)
  assert directory.read('STATUS.json')['state'] == 'failed'
  # The incomplete line of a killed process.
  with (tmp_path / 'metrics.jsonl').open('a') as f:
    f.write('{"step": 11, "tok')
  assert _state(tmp_path)[1]['step'] == 8

  _run(tmp_path)
  assert _lines(tmp_path) == _lines(whole)
  discarded = (tmp_path / 'metrics.discarded.jsonl').read_text()
  assert discarded.endswith('{"step": 11, "tok\n')
  jax.tree.map(
      np.testing.assert_array_equal, _state(tmp_path)[0], _state(whole)[0]
  )


def test_tokens_trained_counts_kept_positions(whole):
  # Three blocks of 16 sequences, and one batch of 32 positions of the fourth.
  loader = toy_suite.Loader()
  rows = loader.block(0, 48, rows=slice(0, 48))
  kept = int(packing.keep_mask(rows).sum())
  lines = {line['step']: line['tokens_trained'] for line in _lines(whole)}
  assert lines[12] == kept
  assert 0 < lines[13] - kept <= 32
  assert _state(whole)[1]['counts']['tokens_trained'] == lines[13]


def test_peer_defect_13_the_scale_is_estimated_once_and_stored(
    tmp_path, whole, monkeypatch
):
  _run(tmp_path, stop=(3,))
  job = toy_suite.make_job(toy_suite.make_config())
  scales = {str(k): v for k, v in job.stream.estimate_scales().items()}

  def fail():
    raise AssertionError('estimated again')

  monkeypatch.setattr(job.stream, 'estimate_scales', fail)
  assert _run(tmp_path, job=job)[0] == train.DONE
  for out in (tmp_path, whole):
    assert _state(out)[1]['scales'] == scales
    assert run_dir.RunDir(out).read('suite.json')['scales'] == scales


def test_a_run_on_eight_devices_is_resumed_on_one(tmp_path):
  five = {'sparsity_coefficients': ('1e-2', '2e-2', '3e-2', '4e-2', '5e-2')}
  five |= {'sites': ('resid_post',)}
  config = toy_suite.make_config(**five)
  _run(tmp_path / 'one', **five)
  mesh = toy_suite.make_mesh(8)
  assert _run(tmp_path / 'eight', mesh=mesh, stop=(7,), **five)[0] == (
      train.PREEMPTED
  )
  assert _run(tmp_path / 'eight', **five)[0] == train.DONE
  one, _ = _state(tmp_path / 'one', config)
  eight, _ = _state(tmp_path / 'eight', config)
  (one,), (eight,) = one.groups.values(), eight.groups.values()
  assert eight.params['W_enc'].shape == (5, 16, 48)
  for name, expected in one.params.items():
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(eight.params[name], expected, rtol=0, atol=atol)
  np.testing.assert_array_equal(eight.silent, one.silent)


def test_a_run_may_be_resumed_with_another_backend(tmp_path, whole):
  for stop, backend in ((4, 'dense'), (7, 'sparse'), (11, 'oracle')):
    assert _run(tmp_path, stop=(stop,), backend=backend)[0] == train.PREEMPTED
  assert _run(tmp_path, backend='auto')[0] == train.DONE
  (state, _), (expected, _) = _state(tmp_path), _state(whole)
  jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
      state,
      expected,
  )


def test_a_finished_run_is_done_without_loading_anything(whole, monkeypatch):
  monkeypatch.setattr(job_lib, 'make_job', None)
  assert train.train(toy_suite.make_config(), whole) == train.DONE


def test_a_run_with_non_finite_activations_fails(tmp_path):
  table = toy_suite.make_table()
  table[lm.Tap(toy_suite.LAYER, lm.Site.RESID_POST)][4:30] = np.inf
  with pytest.raises(errors.DataError, match='non-finite'):
    _run(tmp_path, table=table, sites=('resid_post',))
  status = run_dir.RunDir(tmp_path).read('STATUS.json')
  assert (status['state'], status['exit_code']) == ('failed', 65)


def test_the_status_of_a_stopped_run_has_the_exit_code_of_its_process(tmp_path):
  job = toy_suite.make_job(toy_suite.make_config())
  directory = run_dir.RunDir(tmp_path)
  with directory.claim(job.config):
    train.run(
        job,
        directory,
        should_stop=lambda step: step == 4,
        watch=train.QUIET,
        stop_code=lambda: errors.EXIT_INTERRUPTED,
    )
  status = directory.read('STATUS.json')
  assert (status['state'], status['exit_code']) == ('preempted', 130)


def test_a_run_fails_if_all_members_skip_every_step(tmp_path):
  # The penalty, at an L0 of about ten, is out of float32's range.
  with pytest.raises(errors.NumericalError, match='10 steps in a row'):
    _run(
        tmp_path,
        sparsity_coefficients=('1e38', '2e38'),
        optim__sparsity_warmup_fraction=0.0,
    )
  assert run_dir.RunDir(tmp_path).read('STATUS.json')['exit_code'] == 70


def test_a_resumed_run_knows_how_many_steps_its_members_had_skipped():
  config = toy_suite.make_config(sparsity_coefficients=('1', '2', '3'))
  for mesh in None, toy_suite.make_mesh(8):
    job = toy_suite.make_job(config, mesh=mesh)
    state = suite.init_state(job.groups, mesh=mesh)
    groups = {}
    for name, group in state.groups.items():
      counts = np.arange(7, 7 + len(group.skipped), dtype=np.int32)
      counts = jax.device_put(counts, group.skipped.sharding)
      groups[name] = dataclasses.replace(group, skipped=counts)
    skipped = train._skipped(dataclasses.replace(state, groups=groups), job)
    assert skipped.keys() == groups.keys()
    for counts in skipped.values():
      np.testing.assert_array_equal(counts, [7, 8, 9])


def test_an_interrupted_run_can_be_loaded(tmp_path, monkeypatch):
  _run(tmp_path, stop=(4,))
  monkeypatch.setattr(
      load_run,
      'make_suite',
      lambda config, widths: toy_suite.make_groups(config),
  )
  members = load_run.load_suite(tmp_path)
  sites = [(m.member.site, m.member.sparsity_coefficient) for m in members]
  assert sites == [
      ('resid_post', 0.01),
      ('resid_post', 0.04),
      ('transcoder', 0.01),
      ('transcoder', 0.04),
  ]
  state, meta = _state(tmp_path)
  last = members[3]
  group = state.groups['transcoder-48-jumprelu']
  np.testing.assert_array_equal(last.params['W_dec'], group.params['W_dec'][1])
  assert last.params['W_dec'].shape == (48, last.sae.d_out)
  assert last.input_scale == meta['scales']['layer_2.mlp_in']
  assert last.target_scale == meta['scales']['layer_2.mlp_out']
  assert last.meta['step'] == 4


def test_loading_a_run_changes_nothing_in_its_directory(tmp_path, monkeypatch):
  for stop in 4, 8:
    _run(tmp_path, stop=(stop,))
  monkeypatch.setattr(
      load_run,
      'make_suite',
      lambda config, widths: toy_suite.make_groups(config),
  )
  # A save in flight, and a damaged newest checkpoint.
  in_flight = tmp_path / 'checkpoints' / '12.orbax-checkpoint-tmp-1' / 'state'
  in_flight.mkdir(parents=True)
  (in_flight / 'half').write_text('half an array')
  small_state.flip_bit(
      small_state.largest_file(tmp_path / 'checkpoints' / '8' / 'state')
  )

  def contents():
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in tmp_path.rglob('*')
    }

  before = contents()
  assert load_run.load_suite(tmp_path)[0].meta['step'] == 4
  assert contents() == before


def test_a_run_can_be_loaded_on_a_machine_without_its_model(tmp_path):
  _run(tmp_path, stop=(4,))
  # As if trained on another machine with a model in a folder.
  for name, changes in (
      ('config.json', {'model': '/elsewhere/model'}),
      (
          'suite.json',
          {'d_site': {str(s): w for s, w in toy_suite.WIDTHS.items()}},
      ),
  ):
    record = json_files.read_json(tmp_path / name)
    assert changes.keys() <= record.keys()
    (tmp_path / name).write_text(json.dumps(record | changes))
  assert run_dir.RunDir(tmp_path).read_config().model == '/elsewhere/model'
  members = load_run.load_suite(tmp_path)
  assert len(members) == 4 and members[0].meta['step'] == 4


def test_steps_skipped_are_loaded_member_by_member(tmp_path, monkeypatch):
  # The loss of the second member is out of float32's range at every step.
  _run(
      tmp_path,
      stop=(4,),
      sites=('resid_post',),
      sparsity_coefficients=('1e-2', '1e38'),
      optim__sparsity_warmup_fraction=0.0,
  )
  monkeypatch.setattr(
      load_run,
      'make_suite',
      lambda config, widths: toy_suite.make_groups(config),
  )
  first, second = load_run.load_suite(tmp_path)
  assert first.steps_skipped == 0 < second.steps_skipped <= 4


def test_a_run_without_a_checkpoint_cannot_be_loaded(tmp_path):
  with pytest.raises(errors.MissingInputError, match='no run directory'):
    load_run.load_suite(tmp_path)
  with run_dir.RunDir(tmp_path).claim(toy_suite.make_config()):
    pass
  with pytest.raises(errors.MissingInputError, match='no checkpoint yet'):
    load_run.load_suite(tmp_path)


def test_a_run_that_keeps_failing_at_one_step_is_given_up(tmp_path):
  starts = {'step': 0, 'count': run_dir.MAX_FAILURES}
  (tmp_path / 'config.json').write_text(
      config_lib.to_json(toy_suite.make_config())
  )
  (tmp_path / 'starts.json').write_text(json.dumps(starts))
  with pytest.raises(errors.NumericalError, match='delete starts.json'):
    _run(tmp_path)
  status = json.loads((tmp_path / 'STATUS.json').read_text())
  assert (status['state'], status['exit_code']) == ('failed', 70)


def test_a_run_on_a_full_disk_goes_on_once_there_is_room(
    tmp_path, monkeypatch, whole
):
  save = checkpoint.ocp.save_checkpointables_async

  def fail(path, *args, **kwargs):
    if path.name == '8':
      raise ValueError('RESOURCE_EXHAUSTED: Failed writing: "d/1"')
    return save(path, *args, **kwargs)

  name = 'save_checkpointables_async'
  monkeypatch.setattr(checkpoint.ocp, name, fail)
  out = tmp_path / 'run'
  with pytest.raises(errors.FullDiskError, match='no room for checkpoint 8'):
    _run(out)
  status = run_dir.RunDir(out).read('STATUS.json')
  assert (status['state'], status['exit_code']) == ('failed', 75)
  assert f'{out}/checkpoints: no room for' in status['error']
  monkeypatch.undo()
  assert _run(out)[0] == train.DONE
  jax.tree.map(np.testing.assert_array_equal, _state(out)[0], _state(whole)[0])
  assert _lines(out) == _lines(whole)
