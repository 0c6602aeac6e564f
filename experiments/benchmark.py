"""How fast a training step is: our paths against other people's, paired.

Every implementation is a resident process, woken in turn (A B C, then C B A)
for the same few steps from the same batches, weights, thresholds and bandwidth;
a ratio is taken round by round, so that what else the machine does hits both.
Firing statistics are on for all. Peers are those of docs/performance.md; they
live in an environment of their own, as their requirements are not ours:

  python3 -m venv peers && peers/bin/pip install sae-lens
  peers/bin/pip install --no-deps dictionary-learning eai-sparsify natsort
  python -m experiments.benchmark --shapes=M --peers_python=peers/bin/python

Ratios are how many times faster ours is. `matmuls` is the time of the five
matrix products of a dense step, measured in the same rounds.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
from typing import Any

from absl import flags

from experiments.benchmarking import problem, report, resident
from jumprelu import errors
from jumprelu.ops import native
from jumprelu.run import main as main_lib

PEERS = ('saelens', 'dictionary_learning', 'sparsify')
PATHS = ('oracle', 'dense', 'sparse', 'native')
# Asked for by name: there must be a GPU.
_ON_GPU = ('pallas',)
_CEILINGS = ('matmuls', 'encoder')


@dataclasses.dataclass(frozen=True)
class Case:
  """What is timed."""

  shape: str
  l0: int
  zipf: bool

  def __str__(self) -> str:
    return f'{self.shape}, L0 {self.l0}{", Zipf" if self.zipf else ""}'


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  lists = {
      'shapes': (['M'], f'Sizes: some of {", ".join(problem.SHAPES)}.'),
      'l0': (['64'], 'Mean active latents: 20,64,150.'),
      'paths': (list(PATHS), f'Ours: some of {", ".join(PATHS + _ON_GPU)}.'),
      'peers': (list(PEERS), f'Theirs: some of {", ".join(PEERS)}, or none.'),
  }
  for name, (default, text) in lists.items():
    flags.DEFINE_list(name, default, text, flag_values=flag_values)
  flags.DEFINE_multi_enum(
      'frequencies',
      ['even', 'zipf'],
      ['even', 'zipf'],
      'How often latents fire: all alike, or by a power law.',
      flag_values=flag_values,
  )
  flags.DEFINE_integer(
      'rounds', 5, 'Rounds, each there and back.', 1, flag_values=flag_values
  )
  strings = {
      'peers_python': (sys.executable, 'Interpreter that has the peers.'),
      'json': ('', 'File for the records, as a JSON list.'),
      'plot': ('', 'File for the picture.'),
  }
  for name, (default, text) in strings.items():
    flags.DEFINE_string(name, default, text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> int:
  """Times all cases, prints a table, writes what was asked for."""
  peers = [name for name in flag_values.peers if name != 'none']
  _check('shapes', flag_values.shapes, problem.SHAPES)
  _check('peers', peers, PEERS)
  _check('paths', flag_values.paths, PATHS + _ON_GPU)
  cases, paths = _cases(flag_values), list(flag_values.paths)
  if 'native' in paths and native.why_not():
    print(f'without the native step: {native.why_not()}', file=sys.stderr)
    paths.remove('native')
  ours = [f'ours-{path}' for path in paths]
  records = []
  with tempfile.TemporaryDirectory() as folder:
    for case in cases:
      print(f'{case}: drawing the problem', file=sys.stderr)
      path = pathlib.Path(folder) / 'problem.npz'
      problem.save(path, problem.SHAPES[case.shape], case.l0, zipf=case.zipf)
      pythons = dict.fromkeys((*ours, *_CEILINGS), sys.executable)
      pythons |= dict.fromkeys(peers, flag_values.peers_python)
      turns, gradient_errors = _time(
          pythons, path, problem.SHAPES[case.shape], flag_values.rounds
      )
      found = _compare(case, ours, peers, turns, gradient_errors)
      print(report.table(found, turns))
      records += found
  if flag_values.json:
    text = json.dumps(records, indent=1) + '\n'
    pathlib.Path(flag_values.json).write_text(text, 'utf-8')
  if flag_values.plot:
    report.plot(records, flag_values.plot)
  return 0


def _check(flag: str, values: Sequence[str], known: Any) -> None:
  for value in values:
    if value not in known:
      raise errors.UserError(f'--{flag}={value} is none of {", ".join(known)}')


def _cases(flag_values: flags.FlagValues) -> list[Case]:
  for l0 in flag_values.l0:
    if not l0.isdigit() or not int(l0):
      raise errors.UserError(f'--l0={l0} must be a whole number above 0')
  return [
      Case(shape, int(l0), frequencies == 'zipf')
      for shape, l0, frequencies in itertools.product(
          flag_values.shapes, flag_values.l0, flag_values.frequencies
      )
  ]


def _time(
    pythons: Mapping[str, str],
    path: pathlib.Path,
    shape: problem.Shape,
    rounds: int,
) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
  """Wakes all implementations in turn; returns what each turn reports."""
  turns = {name: [] for name in pythons}
  with resident.all_of(pythons, path) as processes:
    for number in range(rounds):
      order = list(processes)
      for name in (*order, *reversed(order)):
        turns[name].append(processes[name].turn(shape.steps))
      print(f'round {number + 1} of {rounds}', file=sys.stderr)
    # Last: it takes memory of its own.
    gradient_errors = {
        name: process.gradient_error()
        for name, process in processes.items()
        if name.startswith('ours-')
    }
  return turns, gradient_errors


def _compare(
    case: Case,
    ours: Sequence[str],
    peers: Sequence[str],
    turns: Mapping[str, list[dict[str, float]]],
    gradient_errors: Mapping[str, float],
) -> list[dict[str, Any]]:
  """Returns a record for each of ours against each peer and the oracle."""
  others = [*peers, *(name for name in ours if name == 'ours-oracle')]
  records = []
  for mine, other in itertools.product(ours, others):
    if mine == other:
      continue
    speed = ratios(turns[other], turns[mine], 'wall')
    records.append(
        {
            'shape': case.shape,
            'l0': case.l0,
            'zipf': case.zipf,
            'ours': mine.removeprefix('ours-'),
            'peer': other,
            'precision': 'float32',
            'speed_ratio_median': statistics.median(speed),
            'speed_ratio_low': min(speed),
            'speed_ratio_high': max(speed),
            'cpu_ratio': statistics.median(
                ratios(turns[other], turns[mine], 'cpu')
            ),
            'memory_ratio': turns[mine][-1]['memory']
            / turns[other][-1]['memory'],
            'ceiling_share': statistics.median(
                ratios(turns['matmuls'], turns[mine], 'wall')
            ),
            'encoder_share': statistics.median(
                ratios(turns['encoder'], turns[mine], 'wall')
            ),
            'gradient_error': gradient_errors[mine],
        }
    )
  return records


def ratios(
    above: Sequence[Mapping[str, float]],
    below: Sequence[Mapping[str, float]],
    field: str,
) -> list[float]:
  """Returns a ratio a round, of both its turns together."""
  return [
      sum(turn[field] for turn in above[i : i + 2])
      / sum(turn[field] for turn in below[i : i + 2])
      for i in range(0, len(above), 2)
  ]


if __name__ == '__main__':
  # Threads that wait must not take the cores of whose turn it is.
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmark',
          sys.argv[1:],
      )
  )
