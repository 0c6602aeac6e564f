"""Text and language model of a run, compared when it is resumed."""

import json

import jax
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.files import dotted
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import run_dir, train
from tests import compiled, toy_suite
from tests.toy_run import run as _run
from tests.toy_run import state as _state


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  """Shares compiled programs, because all runs compile the same ones."""
  with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
    yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Returns the directory of an uninterrupted run."""
  out = tmp_path_factory.mktemp('runs') / 'whole'
  assert _run(out)[0] == train.DONE
  return out


def test_other_text_is_refused(tmp_path):
  _run(tmp_path, stop=(4,))
  job = toy_suite.make_job(toy_suite.make_config())._replace(data_digest='abc')
  with pytest.raises(errors.UserError, match='trained on other text'):
    _run(tmp_path, job=job)


def _restarted(out, record):
  """Returns the scales of a run that starts with this suite.json."""
  job = toy_suite.make_job(toy_suite.make_config())
  config = config_lib.to_json(job.config)
  out.mkdir()
  (out / 'config.json').write_text(config)
  (out / 'suite.json').write_text(json.dumps(record))
  _run(out, job=job, stop=(3,))
  return run_dir.RunDir(out).read('suite.json')['scales']


def test_scales_of_other_text_or_another_model_are_estimated_anew(
    tmp_path, whole
):
  expected = run_dir.RunDir(whole).read('suite.json')
  scales = dict.fromkeys(expected['scales'], 123.0)
  for number, changes in enumerate(
      (
          {'data_digest': 'of other text'},
          {'lm_digest': 'of other weights'},
          {'lm_digest': None},  # An older version recorded none.
      )
  ):
    record = {**expected, **changes, 'scales': scales}
    assert _restarted(tmp_path / str(number), record) == expected['scales']
  same = {**expected, 'scales': scales}
  assert _restarted(tmp_path / 'same', same) == scales


def test_other_weights_of_the_language_model_are_refused(tmp_path):
  _run(tmp_path, stop=(4,))
  job = toy_suite.make_job(toy_suite.make_config())
  with pytest.raises(errors.UserError, match='--model=gemma2_nano: has other'):
    _run(tmp_path, job=job._replace(lm_digest='of other weights'))
  # Weights of another dtype, as on another device, cannot be compared.
  job = job._replace(lm_digest='in bfloat16', lm_dtype='bfloat16')
  assert _run(tmp_path, job=job, stop=(7,))[0] == train.PREEMPTED


@pytest.fixture
def any_model(monkeypatch):
  """Lets any path be that of the nano model."""
  nano = lm.MODELS['gemma2_nano']
  monkeypatch.setattr(lm, 'get_config', lambda model: nano)


def _moved(job, **paths):
  return job._replace(config=dotted.replace(job.config, paths))


def test_a_run_whose_text_and_model_moved_is_resumed_bit_for_bit(
    tmp_path, whole, any_model
):
  job = toy_suite.make_job(toy_suite.make_config())
  _run(tmp_path, job=_moved(job, data='d/a.jsonl', model='w'), stop=(4,))
  job = _moved(job, data='/moved/b.jsonl', model='/moved/w')
  assert _run(tmp_path, job=job)[0] == train.DONE
  assert run_dir.RunDir(tmp_path).read_config() == job.config
  jax.tree.map(
      np.testing.assert_array_equal, _state(tmp_path)[0], _state(whole)[0]
  )


def test_other_content_at_a_new_path_is_refused_and_the_config_kept(
    tmp_path, any_model
):
  job = toy_suite.make_job(toy_suite.make_config())
  old = _moved(job, data='d/a.jsonl', model='w')
  _run(tmp_path, job=old, stop=(4,))
  new = _moved(job, data='d/b.jsonl', model='v')
  for changes, words in (
      ({'data_digest': 'of other text'}, 'other text'),
      ({'lm_digest': 'of other weights'}, '--model=v: has other weights'),
      ({'lm_dtype': 'bfloat16'}, 'was w, .* set --lm_dtype=float32'),
  ):
    with pytest.raises(errors.UserError, match=words):
      _run(tmp_path, job=new._replace(**changes))
    assert run_dir.RunDir(tmp_path).read_config() == old.config


def test_a_run_of_a_version_that_recorded_no_model_is_resumed(
    tmp_path, monkeypatch, whole
):
  make = train._meta

  def of_old(*args):
    meta = make(*args)
    return {k: v for k, v in meta.items() if not k.startswith('lm_')}

  with monkeypatch.context() as patch:
    patch.setattr(train, '_meta', of_old)
    _run(tmp_path, stop=(4,))
  assert 'lm_digest' not in _state(tmp_path)[1]
  assert _run(tmp_path)[0] == train.DONE
  jax.tree.map(
      np.testing.assert_array_equal, _state(tmp_path)[0], _state(whole)[0]
  )


def test_processes_must_agree_on_the_weights_of_the_language_model():
  job = toy_suite.make_job(toy_suite.make_config())
  facts = job_lib.facts(job)
  others = job_lib.facts(job._replace(lm_digest='of other weights'))
  (name,) = [name for name in facts if facts[name] != others[name]]
  assert '--model' in name
