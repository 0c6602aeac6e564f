"""Suites made at once: all of them, none in another's way, none lost."""

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


def test_what_reads_one_suite_or_makes_one_model_goes_one_after_another():
  chat = made.Made('model', 'chat', 10, stands_for='gemma2_nano')
  one, other = _suite('one'), _suite('other', model=chat)
  readings = [
      suites.Reading('a', one, {}),
      suites.Reading('b', one, {'model': chat}),
      suites.Reading('c', other, {}, scales_of=one),
      suites.Reading('d', _suite('third'), {}),
  ]
  locks = [side_by_side._locks(need) for need in (one, other, *readings)]
  meet = [[bool(a & b) for b in locks] for a in locks]
  assert meet[0] == [True, False, True, True, True, False]
  assert meet[1] == [False, True, False, True, True, False]
  assert meet[5] == [False] * 5 + [True]


def test_workers_are_given_what_is_in_nobodys_way():
  class Idle:
    need = None

    def start(self, need):
      self.need = need

  one = _suite('one')
  pending = [one, suites.Reading('a', one, {}), _suite('other')]
  workers, told = [Idle(), Idle()], []
  side_by_side._hand_out(pending, workers, told.append)
  assert [need.name for need in told] == ['one', 'other']
  assert [need.name for need in pending] == ['a']
  assert [worker.need.name for worker in workers] == ['one', 'other']


def test_each_process_has_cores_of_its_own_if_there_are_enough(monkeypatch):
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
def test_two_suites_at_once_are_left_and_gone_on_with(tmp_path):
  process = _start(tmp_path)
  runs = tmp_path / 'quick'
  while len(list(runs.glob('*/run/metrics.jsonl'))) < 2:
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  os.kill(process.pid, signal.SIGTERM)
  _, said = process.communicate(timeout=120)
  assert process.returncode == 42 and 'the same command goes on' in said
  process = _start(tmp_path)
  _, said = process.communicate(timeout=300)
  assert process.returncode == 0, said
  assert (runs / 'figures' / 'jumprelu_bandwidth.png').is_file()
  for name in ('bandwidth_0.03', 'bandwidth_0.1'):
    assert (runs / 'logs' / f'{name}.log').read_text('utf-8')
