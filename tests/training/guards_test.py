"""Members that keep failing are frozen; runs that fail go back once more."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.training import (
    backends,
    load_run,
    progress,
    rollback,
    run_dir,
    suite,
    train,
)
from tests import compiled, toy_suite
from tests.toy_run import run as _run
from tests.toy_run import state as _state

# 25 steps.
_TOKENS = 32 * 25
# The penalty is out of float32's range at an L0 of about ten.
_BAD = '1e38'


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  """Shares compiled programs, because all runs compile the same ones."""
  with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
    yield


def _config(*coefficients, **changes):
  return {
      'sites': ('resid_post',),
      'sparsity_coefficients': coefficients,
      'optim__sparsity_warmup_fraction': 0.0,
      'tokens': _TOKENS,
      **changes,
  }


def _bits(group, index):
  return [x[index].tobytes() for x in jax.tree.leaves(jax.device_get(group))]


@pytest.mark.parametrize('backend', ['oracle', 'sparse', 'dense', 'native'])
def test_a_failing_member_is_frozen_and_the_others_do_not_notice(
    backend, tmp_path, caplog
):
  both = _config('1e-2', _BAD, backend=backend)
  _run(tmp_path / 'both', **both)
  alone = _config('1e-2', backend=backend)
  _run(tmp_path / 'alone', **alone)
  state, meta = _state(tmp_path / 'both', toy_suite.make_config(**both))
  other, _ = _state(tmp_path / 'alone', toy_suite.make_config(**alone))
  ((_, group),), ((_, reference),) = state.groups.items(), other.groups.items()
  assert _bits(group, 0) == _bits(reference, 0)
  assert list(group.skipped) == [0, 25]
  assert list(backends.is_frozen(group.failing)) == [False, True]
  # Nothing of the member has changed since its start.
  groups = toy_suite.make_groups(toy_suite.make_config(**both))
  start = suite.init_state(groups).groups[groups[0].name]
  for part in ('params', 'nu'):
    assert _bits(getattr(group, part), 1) == _bits(getattr(start, part), 1)
  name = 'resid_post-48-jumprelu-lambda_1e+38-seed_0'
  assert caplog.text.count(f'{name} is frozen') == 1
  status = run_dir.RunDir(tmp_path / 'both').read('STATUS.json')
  assert status['state'] == 'done' and status['frozen'] == [name]
  assert meta['counts']['frozen'] == [name]


def test_a_frozen_member_is_loaded_as_such(tmp_path, monkeypatch):
  _run(tmp_path, **_config('1e-2', _BAD))
  monkeypatch.setattr(
      load_run, 'make_suite', lambda config, _: toy_suite.make_groups(config)
  )
  members = load_run.load_suite(tmp_path)
  assert [member.frozen for member in members] == [False, True]


def test_a_frozen_member_has_no_metrics_and_its_skips_are_counted(tmp_path):
  _run(tmp_path, **_config('1e-2', _BAD))
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ((_, last),) = json.loads(lines[-1])['groups'].items()
  assert last['l0'][0] > 0 and last['l0'][1] is None
  assert last['skipped'] == [0, 25]
  assert last['frozen'] == [0, 1]


@pytest.mark.parametrize('stops', [(7,), (11, 12), (16,)])
def test_an_interrupted_run_with_a_frozen_member_equals_a_whole_one(
    stops, tmp_path
):
  changes = _config('1e-2', _BAD)
  _run(tmp_path / 'whole', **changes)
  for stop in stops:
    _run(tmp_path / 'parts', stop=(stop,), **changes)
  _run(tmp_path / 'parts', **changes)
  config = toy_suite.make_config(**changes)
  whole, parts = (
      _state(tmp_path / name, config)[0] for name in ('whole', 'parts')
  )
  jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_members_on_a_mesh_are_frozen_as_on_one_device(tmp_path):
  changes = _config('1e-2', _BAD)
  config = toy_suite.make_config(**changes)
  _run(tmp_path / 'one', **changes)
  for name, sizes in (('members', (2, 1)), ('latents', (2, 4))):
    _run(tmp_path / name, mesh=toy_suite.make_mesh(*sizes), **changes)
    ours, theirs = (
        _state(tmp_path / folder, config)[0] for folder in (name, 'one')
    )
    ((_, ours),), ((_, theirs),) = ours.groups.items(), theirs.groups.items()
    np.testing.assert_array_equal(ours.skipped, theirs.skipped)
    np.testing.assert_array_equal(ours.failing, theirs.failing)
    np.testing.assert_allclose(
        ours.params['W_dec'], theirs.params['W_dec'], atol=1e-5
    )


class _Reseeded:
  """A stream that fails in some steps until it was reseeded often enough."""

  def __init__(self, job, fails, *, until):
    self._job, self._until = job, until
    self._stream, self.count = job.stream, 0
    self.put = job.stream.put
    self.estimate_scales = job.stream.estimate_scales
    self._fails = fails

  def reseeded(self, count):
    stream = _Reseeded(self._job, self._fails, until=self._until)
    stream._stream, stream.count = self._stream.reseeded(count), count
    return stream

  def make_block(self, index, scales):
    block = self._stream.make_block(index, scales)
    if index in self._fails and self.count < self._until:
      with jax.transfer_guard('allow'):
        bad = {t: x * 1e30 for t, x in block.activations.items()}
      block = dataclasses.replace(block, activations=bad)
    return block


def _failing_job(until, **changes):
  job = toy_suite.make_job(
      toy_suite.make_config(
          **_config('1e-2', '2e-2', checkpoint__every_blocks=3, **changes)
      )
  )
  # Twelve steps in a row.
  return job._replace(stream=_Reseeded(job, (3, 4, 5), until=until))


def test_a_run_whose_members_all_fail_continues_on_other_data(tmp_path):
  job = _failing_job(until=2)
  outcome, _ = _run(tmp_path, job=job)
  assert outcome == train.DONE
  directory = run_dir.RunDir(tmp_path)
  first, second = directory.incidents()
  assert first['from_step'] == second['from_step'] == 12
  assert first['batches'][0] == [3, 0] and len(first['batches']) == 10
  assert [first['rollbacks_before'], second['rollbacks_before']] == [0, 1]
  status = directory.read('STATUS.json')
  assert status['rollbacks'] == 2
  _, meta = _state(tmp_path, job.config)
  assert meta['counts']['rollbacks'] == 2
  assert meta['step'] == 25
  steps = [
      json.loads(line)['step']
      for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert steps == sorted(set(steps)) and steps[-1] == 25


@pytest.mark.parametrize('stops', [(11,), (19,), (11, 20, 23)])
def test_a_run_that_goes_back_is_resumed_bit_for_bit(stops, tmp_path):
  _run(tmp_path / 'whole', job=_failing_job(until=1))
  for stop in stops:
    job = _failing_job(until=1)
    outcome, _ = _run(tmp_path / 'parts', job=job, stop=(stop,))
    assert outcome == train.PREEMPTED
  _run(tmp_path / 'parts', job=_failing_job(until=1))
  config = _failing_job(until=1).config
  whole, parts = (
      _state(tmp_path / name, config)[0] for name in ('whole', 'parts')
  )
  jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_the_fourth_failure_ends_a_run_with_70(tmp_path):
  with pytest.raises(errors.NumericalError, match='10 steps in a row') as e:
    _run(tmp_path, job=_failing_job(until=9))
  assert e.value.exit_code == 70
  directory = run_dir.RunDir(tmp_path)
  assert len(directory.incidents()) == rollback.MAX_ROLLBACKS == 3
  assert directory.read('STATUS.json')['exit_code'] == 70


def test_a_store_has_no_other_data(tmp_path):
  job = _failing_job(until=1)
  stream = job.stream
  plain = type('Stored', (), {
      'make_block': stream.make_block,
      'estimate_scales': stream.estimate_scales,
      'put': stream.put,
  })  # fmt: skip
  with pytest.raises(progress.StuckError):
    _run(tmp_path, job=job._replace(stream=plain))
  assert not run_dir.RunDir(tmp_path).incidents()
