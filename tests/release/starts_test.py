"""Runs that start from the SAEs of runs, releases and published folders."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import publish, starts, write
from jumprelu.run import train as train_command
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, train
from tests import small_release, small_run

_PATH = 'resid_post/layer_2/width_12/average_l0_3'


def _config(folder, **changes):
  sizes = {'widths': (12,), 'sites': ('resid_post',), 'layer': 2}
  return config_lib.resolve(sizes | {'init_from': str(folder)} | changes)


@pytest.fixture
def release(tmp_path):
  """Returns a release whose SAEs have 128 dimensions and differ in targets."""
  members = []
  for seed, target in ((0, 2.0), (1, 4.0)):
    sae, params = small_release.trained_sae(seed=seed, d=128)
    sae, params = sae.fold(params, input_scale=3.5, target_scale=3.5)
    rng = np.random.default_rng(seed)
    members.append(
        dataclasses.replace(
            small_release.make_member(seed=0),
            sae=sae,
            params=params,
            target_l0=target,
            sparsity_coefficient=1.0,
            inputs=rng.normal(size=(9, 128)).astype(np.float32),
            firing_frequency=None,
        )
    )
  folder = tmp_path / 'release'
  write.write_release(members, folder, provenance=small_release.provenance())
  return folder


def test_a_member_starts_from_that_of_its_target(release):
  sources = starts.find(_config(release, target_l0=(4.0, 2.0)))
  (of_group,) = sources.values()
  assert [source.path.rpartition('_')[2] for source in of_group] == ['4', '2']
  assert len({source.digest for source in of_group}) == 2


def test_several_or_no_sources_are_refused(release):
  with pytest.raises(errors.UserError, match='2 SAEs fit .* name the folder'):
    starts.find(_config(release, target_l0=(3.0,)))
  with pytest.raises(
      errors.UserError, match='no SAE for .*it has resid_post layer 2 12'
  ):
    starts.find(_config(release, target_l0=(1.0,), widths=(16,)))
  with pytest.raises(errors.MissingInputError, match='no such folder'):
    starts.find(_config(release / 'no', target_l0=(2.0,)))
  (source,) = starts.find(
      _config(release / f'{_PATH}_target_2', target_l0=(3.0,))
  ).popitem()[1]
  assert source.sae.width == 12


def test_training_without_sources_is_refused(release, tmp_path):
  fields = small_run.overrides(tmp_path, steps=8)
  config = config_lib.resolve(fields | {'init_from': str(release)})
  with pytest.raises(errors.UserError, match='pass its SAEs as sources'):
    train.train(config, tmp_path / 'run', watch=train.QUIET)


def _functions(run):
  """Returns the folded SAEs of a run, by site."""
  members = load_run.load_suite(run)
  return list(zip(members, publish.fold(members), strict=True))


@pytest.mark.slow
def test_a_run_continues_a_run_and_resumes_without_its_source(tmp_path):
  fields = small_run.overrides(tmp_path, steps=8)
  first, second = tmp_path / 'first', tmp_path / 'second'
  assert train_command.train_suite(config_lib.resolve(fields), first) == 0
  # Other scales, and updates too small to be seen.
  fields |= {
      'init_from': str(first),
      'stream.scale_tokens': 512,
      'optim.learning_rate': 1e-9,
  }
  config = config_lib.resolve(fields)
  assert train_command.train_suite(config, second) == 0
  x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 128)) * 20)
  scales = set()
  for (old, (sae, theirs)), (new, (_, ours)) in zip(
      _functions(first), _functions(second), strict=True
  ):
    scales |= {old.input_scale, new.input_scale}
    latents, expected = sae.encode(ours, x), sae.encode(theirs, x)
    assert np.count_nonzero(expected)
    np.testing.assert_allclose(latents, expected, rtol=1e-3, atol=1e-3)
  assert len(scales) == 4
  first.rename(tmp_path / 'moved')
  assert train_command.train_suite(config, second) == 0
  record = json.loads((second / 'suite.json').read_text())['init_from']
  assert len(record) == 4 and all(
      len(s['digest']) == 64 for s in record.values()
  )
