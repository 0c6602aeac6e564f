"""The worker is ready when its line appears, and free after each answer."""

from concurrent import futures
import threading

from jumprelu.explore.serve import worker
from tests.explore.serve import conftest


def test_the_model_is_ready_before_the_line_is_printed(monkeypatch):
  ready = []
  jobs = worker.Worker(lambda report: None)

  def print_line(line, **_):
    ready.append((line, jobs.status['ready']))

  monkeypatch.setattr('builtins.print', print_line)
  jobs.start()
  while jobs.is_working:
    pass
  while not ready:
    pass
  assert ready == [('ready', True)]


def test_the_worker_is_free_when_a_result_arrives():
  jobs = conftest.started(None)
  for _ in range(200):
    assert jobs.submit(lambda live: 3).result(60) == 3
    assert not jobs.status['busy']


def test_a_job_that_is_no_longer_wanted_is_left_out():
  jobs, future, ran = worker.Worker(lambda report: None), futures.Future(), []
  assert jobs._busy.acquire() and future.cancel()
  jobs._finish(future, ran.append, None)
  assert not ran and not jobs.status['busy']


def test_jobs_run_in_the_context_of_the_thread():
  entered = []

  class Context:

    def __enter__(self):
      entered.append(threading.current_thread())

    def __exit__(self, *_):
      pass

  jobs = worker.Worker(lambda report: None, context=Context())
  jobs.start()
  while jobs.is_working:
    pass
  threads = [jobs.submit(lambda _: threading.current_thread()).result(60)]
  assert threads == entered
