"""Kills training runs at random, and compares their ends with whole runs.

Runs of the command `jumprelu train` on the embedded model are sent signals at
random times, during start-up and during saves, and are started again until they
finish. Parameters, second moments, counts, scales, digests and metrics must then
equal those of a run without signals, bit for bit.

  python -m experiments.reliability.soak --cycles=200 --out=DIR

A cycle is a signal and the start after it. DIR/results.jsonl has a line for
each finished run, DIR/soak.csv has the sums by topology, and the last line of
the output has the sums over all starts with the same --out. The exit code is 1
if a run differs or ends wrongly.
"""

from collections.abc import Sequence
import json
import pathlib
import random
import sys
from typing import Any

from absl import flags

from experiments.reliability import soak_runs, soak_states
from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

RESULTS = 'results.jsonl'
# Starts of a run that exits with 75 ('try again'), before it counts as failed.
_MAX_STARTS = 12
_SUMS = ('cycles', 'kills', 'in_flight_saves', 'lost_steps', 'mismatches')


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags_lib.define_integer(
      flag_values, 'cycles', 20, 'The number of signals.', lower_bound=1
  )
  flags_lib.define_integer(
      flag_values, 'seed', 0, 'The seed of the signals.', lower_bound=0
  )
  flags.DEFINE_string(
      'out', None, 'Folder of runs and results.', flag_values=flag_values
  )
  flags.DEFINE_list(
      'topologies',
      list(soak_runs.TOPOLOGIES),
      'Devices and processes of the runs.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Soaks runs; returns 1 if one of all starts failed."""
  if not flag_values.out:
    raise errors.UserError('--out is needed: the folder of the runs')
  for name in flag_values.topologies:
    if name not in soak_runs.TOPOLOGIES:
      raise errors.UserError(
          f'--topologies={name}: none of {", ".join(soak_runs.TOPOLOGIES)}'
      )
  out = pathlib.Path(flag_values.out).absolute()
  out.mkdir(parents=True, exist_ok=True)
  soak(
      out,
      cycles=flag_values.cycles,
      seed=flag_values.seed,
      topologies=flag_values.topologies,
  )
  rows = json_files.read_lines(out / RESULTS)
  write_table(out / 'soak.csv', rows)
  print(last_line(rows))
  return int(any(row['mismatches'] for row in rows))


def soak(
    out: pathlib.Path, *, cycles: int, seed: int, topologies: list[str]
) -> None:
  """Runs at least this number of cycles, and adds lines to the results."""
  path = out / RESULTS
  before = json_files.read_lines(path) if path.exists() else []
  rng = random.Random(f'{seed} {len(before)}')
  count = 0
  while count < cycles:
    # Topologies alternate, over several starts as well.
    name = topologies[len(before) % len(topologies)]
    whole = soak_runs.whole_run(out, name)
    row = _soaked(out, name, whole, rng=rng, number=len(before))
    json_files.append_line(path, row, durable=True)
    before.append(row)
    count += row['cycles']
    print(json.dumps(row), flush=True)


def _soaked(
    out: pathlib.Path,
    name: str,
    whole: pathlib.Path,
    *,
    rng: random.Random,
    number: int,
) -> dict[str, Any]:
  """Runs one run to its end, with signals; returns its line of results."""
  folder = out / 'runs' / f'{number}_{name}'
  job = soak_runs.Job(out, name, folder)
  counts = {
      'cycles': 0, 'kills': 0, 'in_flight_saves': 0, 'lost_steps': 0,
      'starts': 0,
  }  # fmt: skip
  problems, signals = [], []
  for _ in range(rng.randrange(4, 9)):
    hit = soak_runs.interrupted(job, rng)
    counts['starts'] += 1
    if hit.problem:
      problems.append(hit.problem)
      break
    if not hit.signal:  # The run had finished before.
      break
    signals.append(f'{hit.signal}@{hit.aim}')
    counts['cycles'] += 1
    counts['kills'] += hit.killed
    counts['in_flight_saves'] += hit.saving
    counts['lost_steps'] += hit.lost_steps
  if not problems:
    code, output = job.finish()
    counts['starts'] += 1
    while soak_runs.is_temporary(code, output) and (
        counts['starts'] < _MAX_STARTS
    ):
      code, output = job.finish()
      counts['starts'] += 1
    problems = (
        [f'exit {code}: {output[-300:]}']
        if code
        else list(soak_states.differences(folder, whole))
    )
  if not problems:
    soak_runs.remove(folder)
  return {
      'topology': name, **counts, 'mismatches': len(problems),
      'problems': problems, 'signals': signals,
  }  # fmt: skip


def last_line(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the sums over the lines of results as one line."""
  return ' '.join(f'{name}={sum(row[name] for row in rows)}' for name in _SUMS)


def write_table(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  """Writes the sums of each topology."""
  names = ('starts', *_SUMS)
  lines = [','.join(('topology', 'runs', *names))]
  for topology in soak_runs.TOPOLOGIES:
    part = [row for row in rows if row['topology'] == topology]
    sums = [sum(row[name] for row in part) for name in names]
    lines.append(','.join(map(str, (topology, len(part), *sums))))
  json_files.write_text(path, '\n'.join(lines) + '\n')


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.reliability.soak',
          sys.argv[1:],
      )
  )
