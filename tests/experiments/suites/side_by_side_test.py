"""Suites made at once: all are finished, and none conflict."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.nano import made
from experiments.suites import scales, side_by_side, suites

_ROOT = pathlib.Path(side_by_side.__file__).parents[2]


def _suite(name, **config):
  return suites.make(scales.QUICK, name, **config)


def test_needs_that_share_a_suite_or_a_made_model_exclude_each_other():
  chat = made.Made('model', 'chat', 10, stands_for='gemma2_nano')
  plain, chat_suite = _suite('plain'), _suite('chat_suite', model=chat)
  readings = [
      suites.Reading('a', plain, {}),
      suites.Reading('b', plain, {'model': chat}),
      suites.Reading('c', chat_suite, {}, scales_of=plain),
      suites.Reading('d', _suite('third'), {}),
  ]
  needs = (plain, chat_suite, *readings)
  locks = [side_by_side._locks(need) for need in needs]
  conflicts = [[bool(a & b) for b in locks] for a in locks]
  assert conflicts[0] == [True, False, True, True, True, False]
  assert conflicts[1] == [False, True, False, True, True, False]
  assert conflicts[5] == [False] * 5 + [True]


def test_idle_workers_start_needs_without_conflicts():
  class Idle:
    need = None

    def start(self, need):
      self.need = need

  suite = _suite('first')
  pending = [suite, suites.Reading('a', suite, {}), _suite('second')]
  workers, started = [Idle(), Idle()], []
  side_by_side._hand_out(pending, workers, started.append)
  assert [need.name for need in started] == ['first', 'second']
  assert [need.name for need in pending] == ['a']
  assert [worker.need.name for worker in workers] == ['first', 'second']


def test_processes_have_disjoint_cores_if_there_are_enough(monkeypatch):
  monkeypatch.setattr(
      os, 'sched_getaffinity', lambda _: {2, 3, 5, 7, 8}, raising=False
  )
  assert side_by_side._shares(2) == [{2, 5, 8}, {3, 7}]
  assert side_by_side._shares(6) == [set()] * 6


def _start(work, *flags):
  return subprocess.Popen(
      [
          sys.executable,
          '-m',
          'experiments.figures.jumprelu_bandwidth',
          '--quick',
          '--jobs=2',
          f'--work={work}',
          *flags,
      ],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


@pytest.mark.slow
def test_two_suites_at_once_are_interrupted_and_resumed(tmp_path):
  process = _start(tmp_path)
  runs = tmp_path / 'quick'
  while len(list(runs.glob('*/run/metrics.jsonl'))) < 2:
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  os.kill(process.pid, signal.SIGTERM)
  _, stderr = process.communicate(timeout=120)
  assert process.returncode == 42 and 'the same command resumes' in stderr
  process = _start(tmp_path)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  assert (runs / 'figures' / 'jumprelu_bandwidth.png').is_file()
  for name in ('bandwidth_0.03', 'bandwidth_0.1'):
    assert (runs / 'logs' / f'{name}.log').read_text('utf-8')
