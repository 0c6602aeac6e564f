"""Members that are added to a run share its blocks and scales."""

import hashlib
import shutil

import jax
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.files import folder_kinds
from jumprelu.training import (
    addition,
    load_run,
    metrics_file,
    run_dir,
    suite,
    train,
)
from jumprelu.training import job as job_lib
from tests import compiled, toy_suite
from tests.toy_run import state as _state


@pytest.fixture(scope='module', autouse=True)
def toy_jobs(tmp_path_factory):
  """Lets `train` make toy jobs, and shares their compiled programs."""

  def make_job(config, *, on_phase, sources):
    del on_phase, sources
    return toy_suite.make_job(config)

  model = type(lm.MODELS['gemma2_nano'])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(job_lib, 'make_job', make_job)
    patch.setattr(model, 'd_site', lambda _, site: toy_suite.WIDTHS[site])
    with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
      yield


def _train(config, out, *, stop=(), add_to=''):
  return train.train(
      config,
      out,
      should_stop=lambda step: step in stop,
      watch=train.QUIET,
      add_to=add_to,
  )


def _digests(out):
  return {
      path.relative_to(out): hashlib.sha256(path.read_bytes()).digest()
      for path in out.rglob('*')
      if path.is_file() and folder_kinds.ADDED not in path.parts
  }


@pytest.fixture(scope='module')
def base():
  # Without the transcoder, whose taps are then new.
  return toy_suite.make_config(sites=('resid_post',))


@pytest.fixture(scope='module')
def finished(tmp_path_factory, base):
  """Returns the directory of a finished run."""
  out = tmp_path_factory.mktemp('runs') / 'base'
  _train(base, out)
  return out


@pytest.fixture
def run(finished, tmp_path):
  """Returns a copy of the finished run."""
  out = tmp_path / 'run'
  shutil.copytree(finished, out)
  return out


@pytest.mark.parametrize(
    'changes',
    [
        {'sparsity_coefficients': ('2e-2',)},
        {'seeds': (5,)},
        {'widths': (64,), 'sparsity_coefficients': ('1e-2',)},
        {'sites': ('transcoder',)},
        {'target_l0': (8.0,)},
    ],
)
def test_added_members_are_those_of_a_run_alone_bit_for_bit(
    changes, base, run, tmp_path
):
  files = _digests(run)
  config = addition.added(base, changes)
  alone = tmp_path / 'alone'
  _train(config, alone)
  place = addition.directory_of(run, config)
  assert _train(config, place, stop=(7,), add_to=run) == train.PREEMPTED
  assert addition.directory_of(run, config) == place
  assert _train(config, place, add_to=run) == train.DONE
  jax.tree.map(
      np.testing.assert_array_equal,
      _state(place, config)[0],
      _state(alone, config)[0],
  )
  # The members of the run are not touched.
  assert _digests(run) == files


def test_the_scales_are_those_of_the_run(base, run):
  record = run_dir.read_suite(run)
  (key,) = record['scales']
  changed = record | {'scales': {key: 123.0}}
  run_dir.RunDir(run).write_suite(changed)
  config = addition.added(
      base, {'sites': ('resid_post', 'transcoder'), 'seeds': (1,)}
  )
  place = addition.directory_of(run, config)
  _train(config, place, add_to=run, stop=(3,))
  scales = run_dir.read_suite(place)['scales']
  assert scales.pop(key) == 123.0
  assert len(scales) == 2


def test_whatever_reads_a_run_reads_its_added_members(base, run):
  for seed in (1, 2):
    config = addition.added(base, {'seeds': (seed,)})
    _train(config, addition.directory_of(run, config), add_to=run)
  members = load_run.load_suite(run)
  names = [suite.member_name(m.member) for m in members]
  assert [m.config.seeds for m in members] == [
      (0,),
      (0,),
      (1,),
      (1,),
      (2,),
      (2,),
  ]
  assert len(set(names)) == 6
  rows = metrics_file.read(run)
  assert list(dict.fromkeys(row['member'] for row in rows)) == names
  assert {row['run'] for row in rows} == {'run'}


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'seeds': (0, 1)}, 'lambda_0.01-seed_0 already'),
        ({'tokens': 999}, '--tokens must be that of the run, 424'),
        ({'stream.batch': 64}, '--stream.batch must be'),
        ({'sites': ('resid',)}, 'unknown'),
        (
            {'target_l0': (8.0,), 'sparsity_coefficients': ('1e-2',)},
            'exclude each other',
        ),
    ],
)
def test_other_changes_are_refused(changes, words, base, run):
  with pytest.raises(errors.UserError, match=words):
    addition.directory_of(run, addition.added(base, changes))
  assert not (run / 'added').exists()


def test_a_member_that_was_added_before_is_not_added_again(base, run):
  config = addition.added(base, {'seeds': (1,)})
  _train(config, addition.directory_of(run, config), add_to=run, stop=(3,))
  both = addition.added(base, {'seeds': (1, 2)})
  with pytest.raises(errors.UserError, match='added/1 has the member .*seed_1'):
    addition.directory_of(run, both)
  other = addition.added(base, {'seeds': (2,)})
  assert addition.directory_of(run, other) == str(run / 'added' / '2')


def test_other_text_is_refused(base, run):
  record = run_dir.read_suite(run)
  run_dir.RunDir(run).write_suite(record | {'data_digest': 'other'})
  config = addition.added(base, {'seeds': (1,)})
  with pytest.raises(errors.UserError, match='--add: .* other text'):
    _train(config, addition.directory_of(run, config), add_to=run)


def test_a_run_that_has_not_started_is_refused(base, tmp_path):
  with run_dir.RunDir(tmp_path).claim(base):
    pass
  config = addition.added(base, {'seeds': (1,)})
  with pytest.raises(errors.MissingInputError, match='no scales yet'):
    addition.directory_of(tmp_path, config)
