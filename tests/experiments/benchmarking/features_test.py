"""The benchmark of features runs and compares within rounds."""

from experiments.benchmarking import features
from tests.api import conftest as api

release = api.release


def test_the_passes_read_the_same_text(release):
  job = features.prepare(release, 500)
  assert len(job.placed) == len(api.MEMBERS)
  seconds = features.measure(job, 2)
  assert [len(times) for times in seconds.values()] == [2, 2, 1]
  assert all(min(times) > 0 for times in seconds.values())


def test_ratios_are_of_rounds():
  seconds = {
      features.EVALUATE: [1.0, 2.0, 4.0],
      features.PASS: [2.0, 2.0, 4.0],
      features.SECOND: [3.0],
  }
  text = features.table(seconds)
  assert f'| {features.PASS} | 2.00 | 1.00 (1.00 to 1.50) |' in text
  assert f'| {features.SECOND} | 3.00 |' in text
