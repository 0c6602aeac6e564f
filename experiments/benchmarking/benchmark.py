"""How fast a training step is: our backends against other people's, paired.

Every implementation is a resident process, woken in turn (A B C, then C B A)
for the same few steps from the same batches, weights, thresholds and bandwidth;
a ratio is taken round by round, so that what else the machine does hits both.
Firing statistics are on for all. Peers are those of docs/performance.md; they
live in an environment of their own, as their requirements are not ours:

  python3 -m venv peers && peers/bin/pip install sae-lens
  peers/bin/pip install --no-deps dictionary-learning eai-sparsify natsort \
    schedulefree
  python -m experiments.benchmarking.benchmark --shapes=M --peers_python=peers/bin/python

On a GPU memory is that of the arrays on it, and the peers' interpreter must
have a torch for CUDA. Where the card does not hold all of them side by side,
`--alone` has each take all its turns before the next one starts; rounds are
then paired by their numbers only.

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
import jax

from experiments.benchmarking import problem, report, resident, timing
from jumprelu import errors
from jumprelu.ops import native
from jumprelu.run import main as main_lib

PEERS = ('saelens', 'dictionary_learning', 'sparsify')
# What is timed if nobody asks for other backends.
BACKENDS = {
    'cpu': ('oracle', 'dense', 'sparse', 'native'),
    'gpu': ('dense', 'pallas'),
}
_ALL_BACKENDS = (*BACKENDS['cpu'], 'pallas')
_CEILINGS = ('matmuls', 'encoder')


@dataclasses.dataclass(frozen=True)
class Case:
  """What is timed."""

  shape: str
  l0: int
  zipf: bool
  precision: str
  device: str

  def __str__(self) -> str:
    zipf = ', Zipf' if self.zipf else ''
    return f'{self.shape}, L0 {self.l0}{zipf}, {self.precision}, {self.device}'


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  lists = {
      'shapes': (['M'], f'Sizes: some of {", ".join(problem.SHAPES)}.'),
      'l0': (['64'], 'Mean active latents: 20,64,150.'),
      'backends': (None, f'Ours: some of {", ".join(_ALL_BACKENDS)}.'),
      'peers': (list(PEERS), f'Theirs: some of {", ".join(PEERS)}, or none.'),
  }
  for name, (default, text) in lists.items():
    flags.DEFINE_list(name, default, text, flag_values=flag_values)
  enums = {
      'frequencies': (
          ['even', 'zipf'],
          ['even', 'zipf'],
          'How often latents fire: all alike, or by a power law.',
      ),
      'precision': (
          ['float32', 'bfloat16'],
          ['float32'],
          'Of the inputs of matrix products.',
      ),
  }
  for name, (values, default, text) in enums.items():
    flags.DEFINE_multi_enum(
        name, default, values, text, flag_values=flag_values
    )
  flags.DEFINE_enum(
      'device',
      'auto',
      ['auto', *BACKENDS],
      'Where to compute; auto: where JAX would.',
      flag_values=flag_values,
  )
  flags.DEFINE_integer(
      'rounds', 5, 'Rounds, each there and back.', 1, flag_values=flag_values
  )
  switches = {
      'alone': 'One after another, not in turn: where memory is short.',
      'skip_failing': 'Go on without what fails; else the benchmark ends.',
  }
  for name, text in switches.items():
    flags.DEFINE_bool(name, False, text, flag_values=flag_values)
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
  _check('backends', flag_values.backends or (), _ALL_BACKENDS)
  device = flag_values.device
  device = jax.default_backend() if device == 'auto' else device
  _check('device', [device], BACKENDS)
  backends = _backends(flag_values.backends, device)
  records = []
  for cases in _cases(flag_values, device):
    with tempfile.TemporaryDirectory() as folder:
      first = cases[0]
      print(f'{first.shape}, L0 {first.l0}: drawing', file=sys.stderr)
      problem.save(
          pathlib.Path(folder),
          problem.SHAPES[first.shape],
          first.l0,
          zipf=first.zipf,
      )
      for case in cases:
        records += _run(case, backends, peers, folder, flag_values)
        # Each time: what was found is there, whatever comes.
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


def _backends(asked: Sequence[str] | None, device: str) -> list[str]:
  backends = list(asked or BACKENDS[device])
  why_not = 'it is for CPUs' if device != 'cpu' else native.why_not()
  if 'native' in backends and why_not:
    print(f'without the native step: {why_not}', file=sys.stderr)
    backends.remove('native')
  return backends


def _cases(flag_values: flags.FlagValues, device: str) -> list[list[Case]]:
  """Returns what is timed, by the problem drawn for it."""
  for l0 in flag_values.l0:
    if not l0.isdigit() or not int(l0):
      raise errors.UserError(f'--l0={l0} must be a whole number above 0')
  return [
      [
          Case(shape, int(l0), frequencies == 'zipf', precision, device)
          for precision in flag_values.precision
      ]
      for shape, l0, frequencies in itertools.product(
          flag_values.shapes, flag_values.l0, flag_values.frequencies
      )
  ]


def _without_option(peer: str, case: Case) -> str:
  """Says why a peer cannot be timed in a precision; empty if it can."""
  if case.precision == 'float32' or peer == 'saelens':
    return ''
  if peer == 'dictionary_learning':
    return 'it has no option for it'
  return 'its autocast is for GPUs' if case.device == 'cpu' else ''


def _run(
    case: Case,
    backends: Sequence[str],
    peers: Sequence[str],
    folder: str,
    flag_values: flags.FlagValues,
) -> list[dict[str, Any]]:
  """Times a case and prints its table; returns its records."""
  ours = [f'ours-{backend}' for backend in backends]
  pythons = dict.fromkeys((*ours, *_CEILINGS), sys.executable)
  for peer in peers:
    if why_not := _without_option(peer, case):
      print(f'no {peer} in {case.precision}: {why_not}', file=sys.stderr)
    else:
      pythons[peer] = flag_values.peers_python
  plan = timing.Plan(
      rounds=flag_values.rounds,
      steps=problem.SHAPES[case.shape].steps,
      alone=flag_values.alone,
      skip_failing=flag_values.skip_failing,
  )
  job = resident.Job(pathlib.Path(folder), case.device, case.precision)
  timed = timing.measure(pythons, job, plan)
  found = _compare(case, timed, plan.steps)
  print(report.table(str(case), found, timed.turns), flush=True)
  return found


def _compare(
    case: Case, timed: timing.Timed, steps: int
) -> list[dict[str, Any]]:
  """Returns a record for each of ours against each peer and the oracle."""
  turns = timed.turns
  ours = [name for name in turns if name.startswith('ours-')]
  others = [name for name in (*PEERS, 'ours-oracle') if name in turns]
  records = []
  for mine, other in itertools.product(ours, others):
    if mine == other:
      continue
    speed = ratios(turns[other], turns[mine], 'wall')
    records.append(
        dataclasses.asdict(case)
        | {
            'ours': mine.removeprefix('ours-'),
            'peer': other,
            'seconds': _seconds(turns[mine]) / steps,
            'peer_seconds': _seconds(turns[other]) / steps,
            'speed_ratio_median': statistics.median(speed),
            'speed_ratio_low': min(speed),
            'speed_ratio_high': max(speed),
            'cpu_ratio': statistics.median(
                ratios(turns[other], turns[mine], 'cpu')
            ),
            'memory_ratio': _memory(turns[mine]) / _memory(turns[other]),
            'memory_ratio_above_imports': (
                _memory(turns[mine], imports=False)
                / _memory(turns[other], imports=False)
            ),
            'ceiling_share': _share(turns, 'matmuls', mine),
            'encoder_share': _share(turns, 'encoder', mine),
            'gradient_error': timed.gradient_errors[mine],
        }
    )
  return records


def _memory(
    turns: Sequence[Mapping[str, float]], *, imports: bool = True
) -> float:
  """Returns the peak of all turns, with what imports took or without."""
  return turns[-1]['memory'] - (0 if imports else turns[-1]['imports'])


def _seconds(turns: Sequence[Mapping[str, float]]) -> float:
  return statistics.median(turn['wall'] for turn in turns)


def _share(
    turns: Mapping[str, Sequence[Mapping[str, float]]], ceiling: str, mine: str
) -> float:
  if ceiling not in turns:  # It failed.
    return float('nan')
  return statistics.median(ratios(turns[ceiling], turns[mine], 'wall'))


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
  # Asking JAX for its device must not take most of a GPU's memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.benchmark',
          sys.argv[1:],
      )
  )
