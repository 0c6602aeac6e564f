"""Runs that are extended equal runs that were configured so from the start."""

import json

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.training import (
    config as config_lib,
)
from jumprelu.training import (
    extension,
    run_dir,
    schedules,
    train,
)
from jumprelu.training import (
    job as job_lib,
)
from tests import compiled, toy_suite
from tests.toy_run import state as _state

# 13 steps. The learning rate decays from step 7 on, after checkpoint 4.
_SHORT = {
    'optim__lr_decay': 0.5,
    'optim__lr_warmup_steps': None,
    'optim__lr_warmup_fraction': 0.3,
    'optim__sparsity_warmup_steps': None,
    'optim__sparsity_warmup_fraction': 0.2,
    'checkpoint__keep': 1,
}
_TOKENS = 32 * 26


@pytest.fixture(scope='module', autouse=True)
def toy_jobs(tmp_path_factory):
  """Lets `train` make toy jobs, and shares their compiled programs."""

  def make_job(config, *, on_phase, sources):
    del on_phase, sources
    return toy_suite.make_job(config)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(job_lib, 'make_job', make_job)
    with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
      yield


def _train(config, out, *, stop=(), extend=False):
  return train.train(
      config,
      out,
      should_stop=lambda step: step in stop,
      watch=train.QUIET,
      extend=extend,
  )


def _extend(out, *, stop=(), tokens=_TOKENS, **changes):
  before = run_dir.RunDir(out).read_config()
  config = extension.extended(before, {'tokens': tokens, **changes})
  return config, _train(config, out, stop=stop, extend=True)


def _metrics(out):
  lines = (out / 'metrics.jsonl').read_text().splitlines()
  return [{**json.loads(line), 'seconds': 0} for line in lines]


@pytest.fixture(scope='module')
def short():
  return toy_suite.make_config(**_SHORT)


@pytest.fixture(scope='module')
def long(tmp_path_factory, short):
  """Returns the directory of a run with the extended config."""
  out = tmp_path_factory.mktemp('runs') / 'long'
  config = extension.extended(short, {'tokens': _TOKENS})
  assert _train(config, out) == train.DONE
  return out


@pytest.mark.parametrize('stops', [(), (3,), (11,)])
def test_an_extended_run_equals_one_that_was_configured_so(
    stops, short, long, tmp_path
):
  outcome = _train(short, tmp_path, stop=stops)
  assert outcome == (train.PREEMPTED if stops else train.DONE)
  config, outcome = _extend(tmp_path, stop=(16,))
  assert outcome == train.PREEMPTED
  # The same command resumes.
  assert _extend(tmp_path) == (config, train.DONE)
  (state, meta), (expected, _) = (
      _state(out, config) for out in (tmp_path, long)
  )
  assert meta['step'] == 26
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert _metrics(tmp_path) == _metrics(long)
  assert run_dir.RunDir(tmp_path).read_suite()['extensions'] == [
      {'tokens': [424, 832], 'step': 3 if stops == (3,) else 4}
  ]


def test_the_former_run_is_kept_as_a_run_of_its_own(short, tmp_path):
  _train(short, tmp_path)
  before, _ = _state(tmp_path, short)
  _extend(tmp_path, stop=(16,))
  (place,) = (tmp_path / 'branches').iterdir()
  assert place.name == '424'
  assert run_dir.RunDir(place).is_done(13)
  jax.tree.map(np.testing.assert_array_equal, _state(place, short)[0], before)
  assert len(_metrics(place)) == 7


def test_the_checkpoint_before_the_decay_is_kept(short, tmp_path):
  _train(short, tmp_path)
  checkpoints = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert checkpoints == {4, 13}
  assert schedules.decay_start(short.optim, 13) == 7


def test_a_run_without_such_a_checkpoint_is_refused_and_unchanged(
    short, tmp_path
):
  _train(short, tmp_path)
  (tmp_path / 'checkpoints' / '4').rename(tmp_path / 'away')
  with pytest.raises(errors.UserError, match='from step 7 on.*--init_from='):
    _extend(tmp_path)
  assert run_dir.RunDir(tmp_path).read_config() == short
  assert not (tmp_path / 'branches').exists()
  assert run_dir.RunDir(tmp_path).is_done(13)


def test_an_extension_that_was_killed_is_completed(
    short, long, tmp_path, monkeypatch
):
  _train(short, tmp_path)
  write = run_dir.RunDir.write_config

  def killed(self, config):
    if config.tokens == _TOKENS:
      raise KeyboardInterrupt
    write(self, config)

  with monkeypatch.context() as patch:
    patch.setattr(run_dir.RunDir, 'write_config', killed)
    with pytest.raises(KeyboardInterrupt):
      _extend(tmp_path)
  config, outcome = _extend(tmp_path)
  assert outcome == train.DONE
  jax.tree.map(
      np.testing.assert_array_equal,
      _state(tmp_path, config)[0],
      _state(long, config)[0],
  )
  assert len(run_dir.RunDir(tmp_path).read_suite()['extensions']) == 1
  assert run_dir.RunDir(tmp_path / 'branches' / '424').is_done(13)


def test_a_run_without_decay_goes_on_from_its_last_step(tmp_path):
  short = toy_suite.make_config(optim__lr_decay=0.0)
  _train(short, tmp_path)
  _extend(tmp_path)
  assert not (tmp_path / 'branches').exists()
  (record,) = run_dir.RunDir(tmp_path).read_suite()['extensions']
  assert record['step'] == 13


@pytest.mark.parametrize(
    'changes, words',
    [
        ({}, 'set --tokens'),
        ({'tokens': 400}, 'needs more than the 424'),
        ({'tokens': 832, 'layer': 1}, 'layer was 2, is 1'),
        ({'tokens': 832, 'optim.lr_decay': 0.1}, 'lr_decay was 0.5'),
    ],
)
def test_other_changes_are_refused(changes, words, short, long, tmp_path):
  del long
  _train(short, tmp_path, stop=(3,))
  with pytest.raises(errors.UserError, match=words):
    config = extension.extended(short, changes)
    _train(config, tmp_path, extend=True)
  assert run_dir.RunDir(tmp_path).read_config() == short


def test_a_directory_without_a_run_is_refused(short, tmp_path):
  with pytest.raises(errors.MissingInputError, match='no run directory'):
    _train(short, tmp_path / 'none', extend=True)


def test_warmups_keep_their_number_of_steps_bit_for_bit():
  rng = np.random.default_rng(0)
  for _ in range(50):
    optim = {
        'optim.lr_decay': float(rng.uniform(0, 1)),
        'optim.lr_warmup_steps': None,
        'optim.lr_warmup_fraction': float(rng.uniform(0, 1)),
        'optim.sparsity_warmup_steps': None,
        'optim.sparsity_warmup_fraction': float(rng.uniform(0, 1)),
    }
    steps = int(rng.integers(4, 3000))
    old = config_lib.resolve(toy_suite.SMALL | optim | {'tokens': 32 * steps})
    tokens = 32 * int(rng.integers(steps + 1, 9000))
    new = extension.extended(old, {'tokens': tokens})
    decay = schedules.decay_start(old.optim, old.steps)
    # Float32 rounds the share of the decay.
    assert abs(extension.branch_step(old, new) - min(decay, steps)) <= 1


def test_schedules_are_compared_beyond_the_first_part(short, monkeypatch):
  long = extension.extended(short, {'tokens': _TOKENS})
  expected = extension.branch_step(short, long)
  monkeypatch.setattr(extension, '_PART', 4)
  assert extension.branch_step(short, long) == expected > 4
