"""Transcoders with a skip term are trained, resumed and released."""

import json

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import formats, publish, verify
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import load_run, run_digest, run_dir, train
from tests import small_run

STEPS = 64
SITES = ('mlp_out', 'transcoder')


def _config(folder, **changes):
  overrides = small_run.overrides(folder, steps=STEPS)
  evaluation = {'eval.tokens': 2048, 'eval.delta_loss_tokens': 512}
  overrides |= {'sites': SITES, 'affine_skip': True} | evaluation
  return config_lib.resolve({**overrides, **changes})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('affine_skip')


def _train(config, out, stops=()):
  directory = run_dir.RunDir(out)
  job = job_lib.make_job(config)
  for stop in (*stops, STEPS):
    with directory.claim(config):
      train.run(job, directory, should_stop=lambda step, n=stop: step >= n)
  return load_run.load_suite(out)


@pytest.fixture(scope='module')
def run(folder):
  out = folder / 'run'
  return out, _train(_config(folder), out)


def test_only_transcoders_have_a_skip_term_and_it_is_trained(run):
  _, members = run
  for member in members:
    has = 'W_skip' in member.params
    assert has == member.sae.skip == (member.member.site == 'transcoder')
    if has:
      assert (member.params['W_skip'] != 0).mean() > 0.99


def test_a_skip_term_explains_more(folder, run):
  plain = folder / 'plain'
  _train(_config(folder, affine_skip=False), plain)
  last = [
      json.loads(path.read_text('utf-8').splitlines()[-1])['groups']
      for path in (run[0] / 'metrics.jsonl', plain / 'metrics.jsonl')
  ]
  with_skip, without = (
      np.mean(groups['transcoder-64-jumprelu']['fvu']) for groups in last
  )
  assert with_skip < 0.95 * without
  sites = [groups['mlp_out-64-jumprelu'] for groups in last]
  assert sites[0] == sites[1]


def test_an_interrupted_run_equals_an_uninterrupted_one(folder, run):
  out = folder / 'stopped'
  _train(_config(folder), out, stops=(24,))
  small_run.assert_same_bits(out, run[0], STEPS)


def test_a_release_has_the_skip_term(folder, run):
  opened = publish.open_run(run[0])
  rows = publish.release_run(
      opened, publish.evaluate_run(opened), folder / 'release'
  )
  verify.verify_release(folder / 'release')
  released = formats.find(folder / 'release')
  assert len(rows) == len(released) == 4
  for row in rows:
    sae = released[row['path']]
    assert sae.sae.skip == (row['site'] == 'transcoder')
    assert ('W_skip' in sae.params) == sae.sae.skip


def test_it_needs_a_transcoder_and_leaves_other_digests_as_they_were(folder):
  with pytest.raises(errors.UserError, match='no transcoder among the sites'):
    _config(folder, sites=('mlp_out',))
  plain = _config(folder, affine_skip=False)
  assert run_digest.run_digest(plain) != run_digest.run_digest(_config(folder))
