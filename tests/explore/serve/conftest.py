"""A live model of a small release, and a page without one."""

import pytest

from jumprelu.api import dictionary
from jumprelu.explore.serve import app, guard, live, worker
from jumprelu.release import formats
from tests.api import conftest as api

release, model, suite = api.release, api.model, api.suite

HOST = '127.0.0.1:8080'
HOSTS = guard.hosts('127.0.0.1', 8080)
PAGE = app.Page(b'<!doctype html>', {'m0/0.js': b'__jumprelu_blob();'}, 'csp')
# Texts are padded to a single length, because each is compiled.
LENGTHS = (16,)


def make_live(saes, model, lengths=LENGTHS):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(live, 'LENGTHS', lengths)
    return live.Live(saes, model)


@pytest.fixture(scope='session')
def saes(release):
  return {
      path: dictionary.Dictionary(sae, path=path)
      for path, sae in formats.find(release).items()
  }


@pytest.fixture(scope='session')
def live_model(saes, model):
  return make_live(saes, model)


def started(live_model):
  """Returns a worker whose live model is ready."""
  jobs = worker.Worker(lambda report: live_model)
  jobs.start()
  while jobs.is_working:
    pass
  return jobs
