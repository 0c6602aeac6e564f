"""The benchmark of a whole job: numbers that it reads off a run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.benchmarking import benchmark_job

_ROOT = pathlib.Path(benchmark_job.__file__).parents[2]

# A checkout whose demo trains for half a second and evaluates for another half.
_DEMO = """
import json, pathlib, sys, time
out = next(a for a in sys.argv if a.startswith('--out=')).partition('=')[2]
run = pathlib.Path(out) / 'run'
run.mkdir(parents=True)
time.sleep(0.3)
for i in range(1, 4):
  with (run / 'metrics.jsonl').open('a') as f:
    print(json.dumps({'positions': 1000 * i, 'seconds': 5.0 * i}), file=f)
(run / 'STATUS.json').write_text('{"state": "running"}')
time.sleep(0.5)
(run / 'STATUS.json').write_text('{"state": "done"}')
time.sleep(0.25)
(run.parent / 'release').mkdir()
time.sleep(0.25)
"""


def _run(tmp_path, code):
  package = tmp_path / 'jumprelu' / 'run'
  package.mkdir(parents=True)
  (package / 'main.py').write_text(code, 'utf-8')
  for folder in (package, package.parent):
    (folder / '__init__.py').touch()
  done = subprocess.run(
      [
          sys.executable,
          '-m',
          'experiments.benchmarking.benchmark_job',
          f'--root={tmp_path}',
          f'--json={tmp_path / "results.json"}',
      ],
      cwd=_ROOT,
      # Without it, the code of the checkout is imported.
      env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
      capture_output=True,
      text=True,
  )
  return done, tmp_path / 'results.json'


def test_the_numbers_are_those_of_the_run_that_it_watches(tmp_path):
  done, path = _run(tmp_path, _DEMO)
  assert done.returncode == 0, done.stderr
  results = json.loads(path.read_text('utf-8'))
  # 2000 positions in 10 seconds, from the first line of metrics to the last.
  assert results['tokens_per_second'] == 200
  assert results['seconds_of_training'] == 10
  assert 0.3 <= results['seconds_to_first_metrics'] < results['seconds']
  assert 0.4 <= results['seconds_after_training'] <= 1.5
  assert 1 <= results['seconds_to_release'] <= results['seconds'] - 0.2
  assert results['peak_mib'] > 1
  for name in results:
    assert name in done.stdout


@pytest.mark.parametrize('code', ['raise SystemExit(3)'])
def test_a_demo_that_fails_is_an_error_with_its_code(tmp_path, code):
  done, path = _run(tmp_path, code)
  assert done.returncode == 2 and not path.exists()
  assert 'ended with code 3' in done.stderr
