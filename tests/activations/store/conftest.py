"""A toy job and its store, shared by all tests of stores."""

import pytest

from jumprelu.training import train
from tests import small_store, toy_suite


@pytest.fixture(scope='session')
def job():
  """The job whose blocks are stored, compiled only once."""
  return toy_suite.make_job(toy_suite.make_config())


@pytest.fixture(scope='session')
def written(tmp_path_factory, job):
  """A complete store of the job, which no test modifies."""
  path = tmp_path_factory.mktemp('stores') / 'whole'
  with pytest.MonkeyPatch.context() as patch, small_store.small_files(patch):
    assert small_store.write(path, job) == train.DONE
  return path
