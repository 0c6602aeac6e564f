"""Runs that need more memory than there is are warned of, or refused."""

import pathlib

import pytest

from jumprelu import errors, sharding
from jumprelu.planning import costs, start_memory
from jumprelu.training import config as config_lib
from tests import toy_suite


@pytest.fixture
def needed():
  """Returns the bytes that the toy run needs on the tests' devices."""
  config = toy_suite.make_config()
  mesh = sharding.make_mesh(config.mesh)
  shape = sharding.MeshShape(mesh.shape['data'], mesh.shape['tensor'])
  return costs.memory(config, shape).total


@pytest.mark.parametrize(
    'share, outcome', [(1.1, ''), (0.9, 'warning'), (0.4, 'refused')]
)
def test_the_prediction_of_plan_is_compared_with_the_device(
    monkeypatch, needed, share, outcome
):
  monkeypatch.setattr(start_memory, '_device_bytes', lambda: needed * share)
  config = toy_suite.make_config()
  if outcome == 'refused':
    with pytest.raises(errors.UserError, match='the run needs about .* GiB'):
      start_memory.check(config)
    return
  warning = start_memory.check(config)
  assert bool(warning) == bool(outcome)
  if outcome:
    assert warning.startswith('warning: the run needs about')
    assert '--widths' in warning and '\n' not in warning


def test_a_cpu_is_compared_with_the_memory_of_machine_and_container(
    monkeypatch, tmp_path
):
  machine = start_memory.host_bytes()
  assert machine > 2**28
  limit = tmp_path / 'memory.max'
  missing = str(tmp_path / 'missing')
  monkeypatch.setattr(start_memory, '_CGROUP_FILES', (missing, str(limit)))
  limit.write_text('max')
  assert start_memory.host_bytes() >= machine
  limit.write_text(str(2**26))
  assert start_memory.host_bytes() == 2**26
  with pytest.raises(errors.UserError, match='this machine has 0.1 GiB'):
    start_memory.check(toy_suite.make_config())


def test_train_checks_the_memory_before_the_run_directory_is_made(
    monkeypatch, tmp_path
):
  from jumprelu.run import train

  monkeypatch.setattr(start_memory, 'host_bytes', lambda: 2**26)
  out = pathlib.Path(tmp_path / 'run')
  with pytest.raises(errors.UserError, match='the run needs about'):
    train.train_suite(config_lib.resolve(), out)
  assert not out.exists()
