"""The speed of a training step: our backends against other libraries.

The other libraries (peers) are SAELens, dictionary_learning and sparsify. Every
implementation runs in a separate process. A trial is a few steps, with the same
batches, weights, thresholds and bandwidth in all processes. In each round every
process runs two trials, in the order A B C C B A. Ratios are computed within a
round, so that other load on the machine affects both sides. All implementations
collect firing statistics.

Peers need a separate environment, because their requirements conflict with
ours:

  python3 -m venv peers && peers/bin/pip install sae-lens
  peers/bin/pip install --no-deps dictionary-learning eai-sparsify natsort \
    schedulefree
  python -m experiments.benchmarking.benchmark --shapes=M \
    --peers_python=peers/bin/python

On a GPU the reported memory is that of the arrays on it, and the peers'
environment must have torch for CUDA. If the GPU cannot hold the arrays of all
implementations at the same time, `--alone` runs all rounds of one
implementation before the next starts. A ratio is then that of two rounds with
the same number.

A ratio of 2 means that our step is twice as fast. `matmuls` is the time of the
five matrix products of a dense step, measured in the same rounds.
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

from experiments.benchmarking import (
    machine,
    problem,
    report,
    resident,
    timing,
)
from jumprelu import errors
from jumprelu.ops import native
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

PEERS = ('saelens', 'dictionary_learning', 'sparsify')
# The backends that are timed by default.
BACKENDS = {
    'cpu': ('oracle', 'dense', 'sparse', 'native'),
    'gpu': ('dense', 'pallas'),
}
_ALL_BACKENDS = (*BACKENDS['cpu'], 'pallas')
_CEILINGS = ('matmuls', 'encoder')


@dataclasses.dataclass(frozen=True)
class Case:
  """A problem, a precision and a device."""

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
      'shapes': (
          ['M'],
          f'Sizes of SAE and batch, among {", ".join(problem.SHAPES)}.',
      ),
      'l0': (['64'], 'Mean numbers of active latents, e.g. 20,64,150.'),
      'backends': (None, f'Backends, among {", ".join(_ALL_BACKENDS)}.'),
      'peers': (list(PEERS), f'Peers, among {", ".join(PEERS)}; or none.'),
  }
  for name, (default, text) in lists.items():
    flags.DEFINE_list(name, default, text, flag_values=flag_values)
  enums = {
      'frequencies': (
          ['even', 'zipf'],
          ['even', 'zipf'],
          'Firing frequencies of latents: all equal, or by a power law.',
      ),
      'precision': (
          ['float32', 'bfloat16'],
          ['float32'],
          'Precision of the inputs of matrix products.',
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
      'Device; auto is the default device of JAX.',
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values, 'rounds', 5, 'Number of rounds.', lower_bound=1
  )
  switches = {
      'alone': 'Run one implementation after another, to save memory.',
      'skip_failing': 'Leave out an implementation that fails, and print why.',
  }
  for name, text in switches.items():
    flags.DEFINE_bool(name, False, text, flag_values=flag_values)
  strings = {
      'peers_python': (sys.executable, 'Python with the peers installed.'),
      'json': ('', 'File for the records, as a JSON list.'),
      'plot': ('', 'File for a plot of the ratios.'),
  }
  for name, (default, text) in strings.items():
    flags.DEFINE_string(name, default, text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> int:
  """Times all cases, prints their tables, and writes records and plot."""
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
        # After each case, so that a later failure loses no records.
        if flag_values.json:
          text = json.dumps(records, indent=1) + '\n'
          pathlib.Path(flag_values.json).write_text(text, 'utf-8')
  if flag_values.plot:
    report.plot(records, flag_values.plot)
  return 0


def _check(flag: str, values: Sequence[str], known: Any) -> None:
  for value in values:
    if value not in known:
      raise errors.UserError(
          f'--{flag}={value}: must be one of {", ".join(known)}'
      )


def _backends(names: Sequence[str] | None, device: str) -> list[str]:
  backends = list(names or BACKENDS[device])
  why_not = 'it runs only on CPUs' if device != 'cpu' else native.why_not()
  if 'native' in backends and why_not:
    print(f'the native step is left out: {why_not}', file=sys.stderr)
    backends.remove('native')
  return backends


def _cases(flag_values: flags.FlagValues, device: str) -> list[list[Case]]:
  """Returns the cases, grouped by the problem that they share."""
  for l0 in flag_values.l0:
    if not l0.isdigit() or not int(l0):
      raise errors.UserError(f'--l0={l0} must be a positive integer')
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
  """Returns why a peer cannot run in a precision, or '' if it can."""
  if case.precision == 'float32' or peer == 'saelens':
    return ''
  if peer == 'dictionary_learning':
    return 'it has no option for that precision'
  return 'its autocast works only on GPUs' if case.device == 'cpu' else ''


def _run(
    case: Case,
    backends: Sequence[str],
    peers: Sequence[str],
    folder: str,
    flag_values: flags.FlagValues,
) -> list[dict[str, Any]]:
  """Returns the records of a case, after timing it and printing its table."""
  ours = [f'ours-{backend}' for backend in backends]
  pythons = dict.fromkeys((*ours, *_CEILINGS), sys.executable)
  for peer in peers:
    if why_not := _without_option(peer, case):
      print(
          f'{peer} is left out in {case.precision}: {why_not}', file=sys.stderr
      )
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
  records = _compare(case, timed, plan.steps)
  where = machine.describe()
  title = f'{case}; {where}'
  print(report.table(title, records, timed.trials), flush=True)
  return [{'machine': where} | record for record in records]


def _compare(
    case: Case, timed: timing.Timed, steps: int
) -> list[dict[str, Any]]:
  """Returns one record for each of our backends and each peer or the oracle."""
  trials = timed.trials
  ours = [name for name in trials if name.startswith('ours-')]
  others = [name for name in (*PEERS, 'ours-oracle') if name in trials]
  records = []
  for mine, other in itertools.product(ours, others):
    if mine == other:
      continue
    speed = ratios(trials[other], trials[mine], 'wall')
    records.append(
        dataclasses.asdict(case)
        | {
            'ours': mine.removeprefix('ours-'),
            'peer': other,
            'seconds': _seconds(trials[mine]) / steps,
            'peer_seconds': _seconds(trials[other]) / steps,
            'speed_ratio_median': statistics.median(speed),
            'speed_ratio_low': min(speed),
            'speed_ratio_high': max(speed),
            'cpu_ratio': statistics.median(
                ratios(trials[other], trials[mine], 'cpu')
            ),
            'memory_ratio': _memory(trials[mine]) / _memory(trials[other]),
            'memory_ratio_above_imports': (
                _memory(trials[mine], imports=False)
                / _memory(trials[other], imports=False)
            ),
            'ceiling_share': _share(trials, 'matmuls', mine),
            'encoder_share': _share(trials, 'encoder', mine),
            'gradient_error': timed.gradient_errors[mine],
        }
    )
  return records


def _memory(
    trials: Sequence[Mapping[str, float]], *, imports: bool = True
) -> float:
  """Returns the peak over all trials, with or without the memory of imports."""
  return trials[-1]['memory'] - (0 if imports else trials[-1]['imports'])


def _seconds(trials: Sequence[Mapping[str, float]]) -> float:
  return statistics.median(trial['wall'] for trial in trials)


def _share(
    trials: Mapping[str, Sequence[Mapping[str, float]]], ceiling: str, mine: str
) -> float:
  if ceiling not in trials:  # It failed and was skipped.
    return float('nan')
  return statistics.median(ratios(trials[ceiling], trials[mine], 'wall'))


def ratios(
    above: Sequence[Mapping[str, float]],
    below: Sequence[Mapping[str, float]],
    field: str,
) -> list[float]:
  """Returns the ratio of each round, of a field's sums over its two trials."""
  return [
      sum(trial[field] for trial in above[i : i + 2])
      / sum(trial[field] for trial in below[i : i + 2])
      for i in range(0, len(above), 2)
  ]


if __name__ == '__main__':
  # Waiting threads must leave the cores to the process that is being timed.
  os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
  # Otherwise JAX would reserve most of a GPU's memory for this process.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.benchmark',
          sys.argv[1:],
      )
  )
