"""A run of several layers equals a run of each layer."""

import numpy as np
import pytest

from jumprelu.activations import scales as scales_lib
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import load_run, metrics_file, run_dir, train
from tests import small_run

LAYERS = (0, 1, 3)
STEPS = 20


def _config(folder, **layers):
  overrides = small_run.overrides(folder, steps=STEPS)
  del overrides['layer']
  return config_lib.resolve({**overrides, **layers})


def _train(config, out):
  job = job_lib.make_job(config)
  directory = run_dir.RunDir(out)
  with directory.claim(config):
    assert train.run(job, directory) == train.DONE
  return job


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('several_layers')


@pytest.fixture(scope='module')
def together(folder):
  """Returns the job and the run of all layers."""
  out = folder / 'together'
  return _train(_config(folder, layers=LAYERS), out), out


@pytest.fixture(scope='module')
def alone(folder):
  """Returns the job and the run of each layer."""
  made = {}
  for layer in LAYERS:
    out = folder / f'alone_{layer}'
    made[layer] = _train(_config(folder, layer=layer), out), out
  return made


def test_every_member_equals_that_of_a_run_of_its_layer(together, alone):
  ours = load_run.load_suite(together[1])
  theirs = [m for layer in LAYERS for m in load_run.load_suite(alone[layer][1])]
  assert [m.member for m in ours] == [m.member for m in theirs]
  for mine, other in zip(ours, theirs, strict=True):
    assert mine.meta['counts']['step'] == STEPS
    assert mine.input_scale == pytest.approx(other.input_scale, rel=1e-6)
    for name, x in mine.params.items():
      np.testing.assert_allclose(
          x,
          other.params[name],
          rtol=0,
          atol=1e-5 * np.abs(x).max(),
          err_msg=f'{mine.name} {name}',
      )


def _block(job):
  """Returns the second block of a job, at scales of 1."""
  taps = {tap for group in job.groups for tap in group.reads.taps}
  return job.stream.make_block(1, scales_lib.Scales(dict.fromkeys(taps, 1.0)))


def test_rows_and_their_order_are_those_of_a_run_of_one_layer(together, alone):
  every, block = together[0], _block(together[0])
  for layer, (job, _) in alone.items():
    for index in range(2):
      count = job.stream._sequences
      np.testing.assert_array_equal(
          job.stream._tokens(index, count), every.stream._tokens(index, count)
      )
    other = _block(job)
    np.testing.assert_array_equal(block.order, other.order)
    np.testing.assert_array_equal(block.keep, other.keep)
    for tap, values in other.activations.items():
      assert tap.layer == layer
      x, y = np.asarray(block.activations[tap]), np.asarray(values)
      np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_metrics_and_members_are_named_by_their_layer(together, alone):
  members = load_run.load_suite(together[1])
  names = [member.name for member in members]
  assert len(set(names)) == len(names) == len(LAYERS) * 4
  assert names[0] == 'layer_0-resid_post-64-jumprelu-lambda_0.001-seed_0'
  rows = metrics_file.read(run_dir.RunDir(together[1]).path)
  assert {row['member'] for row in rows} == set(names)
  assert {row['layer'] for row in rows} == set(LAYERS)
  name, *_ = (m.name for m in load_run.load_suite(alone[0][1]))
  assert name == 'resid_post-64-jumprelu-lambda_0.001-seed_0'
