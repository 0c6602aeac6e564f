"""Damages files of all kinds, and checks that readers refuse or read them.

A case changes bytes, numbers, JSON nodes or entries of a valid input and reads
it. It must end with one line for the user or with valid values, within a limit
of time and memory, and must change no file outside its folder and run no other
program. Files with a digest must be refused, or read with equal values.

Cases are run by a worker process of low priority, which is started again after
a crash or a hang. They are reproduced from reader, seed and number:

  python -m experiments.reliability.fuzz --seconds=300 --out=DIR
  python -m experiments.reliability.fuzz --readers=saelens --out=DIR
  python -m experiments.reliability.fuzz --case=saelens:0:17

DIR/READER.json and DIR/fuzz.csv have the sums over all starts with the same
--out. Each start begins with the failures of earlier ones; those that no longer
fail are counted as mended. The exit code is 1 while there are failures.
"""

from collections.abc import Iterator, Mapping
import itertools
import math
import os
import pathlib
import sys
import time
from typing import Any

from absl import flags

from experiments.reliability import supervisor
from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

_SLICE_SECONDS = 10.0
# Cases that every reader has before others have more.
_CASES = 10_000
# The time of a case of a reader that counts as fast.
_FAST_SECONDS = 5e-3
_KINDS = {
    'crash': 'crashes',
    'hang': 'hangs',
    'traceback': 'tracebacks',
    'wrong': 'wrong',
}
_COLUMNS = ('cases', 'clean', 'accepted', 'mended')
# Failures for the same reason that are recorded with their numbers.
_RECORDED = 5


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_float(
      'seconds',
      60.0,
      'How long to run.',
      lower_bound=0,
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values, 'seed', 0, 'The seed of the cases.', lower_bound=0
  )
  flags.DEFINE_string(
      'out',
      None,
      'Folder of the results, which add up.',
      flag_values=flag_values,
  )
  flags.DEFINE_list(
      'readers', [], 'Only these readers.', flag_values=flag_values
  )
  flags.DEFINE_string(
      'case',
      None,
      'Runs READER:SEED:NUMBER alone, in this process, and prints its outcome.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Runs cases; returns 1 if there are failures."""
  # No reader may use compiled programs of another process.
  os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  if flag_values.case:
    return _run_case(flag_values.case)
  if not flag_values.out:
    raise errors.UserError('--out is needed: the folder of the results')
  out = pathlib.Path(flag_values.out)
  out.mkdir(parents=True, exist_ok=True)
  results = fuzz(
      out,
      seconds=flag_values.seconds,
      seed=flag_values.seed,
      readers=flag_values.readers,
  )
  write_table(out / 'fuzz.csv', results)
  print(last_line(results))
  return int(any(result['failures'] for result in results.values()))


def fuzz(
    out: pathlib.Path,
    *,
    seconds: float,
    seed: int,
    readers: list[str] | None = None,
) -> dict[str, dict[str, Any]]:
  """Runs cases and updates the results in a folder; returns these.

  Args:
    out: The folder.
    seconds: How long to run; readers without cases have a slice at least.
    seed: The seed of the cases.
    readers: The names of the readers; all if empty.
  """
  from experiments.reliability.readers import registry

  known = list(registry.all_readers())
  if unknown := set(readers or ()) - set(known):
    raise errors.UserError(
        f'--readers={sorted(unknown)[0]}: none of {", ".join(known)}'
    )
  names = readers or known
  results = {name: _read(out / f'{name}.json') for name in names}
  end = time.monotonic() + seconds
  slice_seconds = min(_SLICE_SECONDS, seconds / len(names))
  worker = supervisor.Worker()
  try:
    for name in names:
      _repeat_failures(worker, name, results[name])
      json_files.write_json(out / f'{name}.json', results[name])
    for name in _turns(results, end):
      _add_slice(worker, name, results[name], seed=seed, seconds=slice_seconds)
      json_files.write_json(out / f'{name}.json', results[name])
      _report(name, results[name])
  finally:
    worker.stop()
  return results


def last_line(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the sums over all readers as one line."""
  failures = [f for result in results.values() for f in result['failures']]
  counts = {
      plural: sum(f['count'] for f in failures if f['kind'] == kind)
      for kind, plural in _KINDS.items()
  }
  cases = sum(result['cases'] for result in results.values())
  rest = ' '.join(f'{name}={count}' for name, count in counts.items())
  return f'cases={cases} readers={len(results)} {rest}'


def write_table(
    path: pathlib.Path, results: Mapping[str, Mapping[str, Any]]
) -> None:
  """Writes the numbers of cases by reader."""
  lines = [','.join(('reader', *_COLUMNS, *_KINDS.values()))]
  for name, result in sorted(results.items()):
    counts = [str(result[column]) for column in _COLUMNS]
    for kind in _KINDS:
      failures = [f for f in result['failures'] if f['kind'] == kind]
      counts.append(str(sum(f['count'] for f in failures)))
    lines.append(','.join((name, *counts)))
  json_files.write_text(path, '\n'.join(lines) + '\n')


def _turns(results: Mapping[str, Any], end: float) -> Iterator[str]:
  """Yields each reader without cases once, then others.

  Every second turn is one of the reader that will be the next to have `_CASES`
  cases, the others are of the fast reader with the fewest cases.
  """
  yield from [name for name in results if not results[name]['cases']]

  def cases(name):
    return results[name]['cases']

  def cost(name):
    return results[name]['cost']

  def left(name):
    missing = _CASES - cases(name)
    return missing * cost(name) if missing > 0 else math.inf

  for turn in itertools.count():
    if time.monotonic() > end:
      return
    nearest = min(results, key=left)
    fast = [name for name in results if cost(name) < _FAST_SECONDS]
    if turn % 2 and left(nearest) < math.inf:
      yield nearest
    else:
      yield min(fast, key=cases, default=min(results, key=cases))


def _read(path: pathlib.Path | None) -> dict[str, Any]:
  """Returns the results of earlier starts; empty ones without a path."""
  empty = {
      'cases': 0, 'clean': 0, 'accepted': 0, 'seconds': 0.0, 'cost': 0.0,
      'mended': 0,
      'next': {}, 'failures': [],
  }  # fmt: skip
  return empty | (json_files.read_json(path, missing_ok=True) if path else {})


def _add_slice(
    worker: supervisor.Worker,
    name: str,
    result: dict[str, Any],
    *,
    seed: int,
    seconds: float,
    slices: int = 0,
) -> None:
  """Runs new cases of a reader and adds their outcomes.

  Args:
    worker: Runs the cases.
    name: The reader.
    result: The results of the reader, which are updated.
    seed: The seed of the cases.
    seconds: The time.
    slices: The largest number of slices, which a crash or a hang ends early; 0
      for any number.
  """
  started = time.monotonic()
  first, before = result['next'].get(str(seed), 0), result['cases']
  end = started + seconds
  number_of_slices = 0
  while (left := end - time.monotonic()) > 0:
    number_of_slices += 1
    outcome = worker.run(name, seed, itertools.count(first), seconds=left)
    for number, kind, reason in outcome.failures:
      _add_failure(result, seed, number, kind=kind, reason=reason)
    result['cases'] += outcome.count
    for kind in ('clean', 'accepted'):
      result[kind] += outcome.counts.get(kind, 0)
    first += outcome.count
    result['next'][str(seed)] = first
    if number_of_slices == slices:
      break
  passed = time.monotonic() - started
  result['seconds'] = round(result['seconds'] + passed, 1)
  # Seconds per case, of the last slice alone.
  result['cost'] = passed / max(1, result['cases'] - before)


def _add_failure(
    result: dict[str, Any], seed: int, number: int, *, kind: str, reason: str
) -> None:
  """Adds a failure to those for the same reason."""
  # The text of an error is part of a reason, and differs between cases.
  place = ' '.join(reason.split(' ')[:2])
  for failure in result['failures']:
    if (failure['kind'], failure['place']) == (kind, place):
      failure['count'] += 1
      if len(failure['numbers']) < _RECORDED:
        failure['numbers'].append([seed, number])
      return
  result['failures'].append({
      'kind': kind, 'place': place, 'reason': reason, 'count': 1,
      'numbers': [[seed, number]],
  })  # fmt: skip


def _repeat_failures(
    worker: supervisor.Worker, name: str, result: dict[str, Any]
) -> None:
  """Runs the failures of earlier starts again, and drops mended ones."""
  kept = []
  for failure in result['failures']:
    fails = False
    for seed, number in failure['numbers']:
      outcome = worker.run(name, seed, iter([number]), seconds=0)
      fails = fails or bool(outcome.failures)
    if fails:
      kept.append(failure)
    else:
      result['mended'] += failure['count']
  result['failures'] = kept


def _report(name: str, result: Mapping[str, Any]) -> None:
  print(
      f'{name}: {result["cases"]} cases, {result["clean"]} clean,'
      f' {result["accepted"]} accepted, {len(result["failures"])} kinds of'
      f' failure, {result["seconds"]:.0f} s',
      flush=True,
  )


def _run_case(text: str) -> int:
  """Runs one case and prints its outcome; returns 1 if it fails."""
  from experiments.reliability import worker
  from experiments.reliability.readers import registry

  name, _, rest = text.partition(':')
  seed, _, number = rest.partition(':')
  if name not in registry.all_readers() or not (seed + number).isdigit():
    raise errors.UserError(f'--case={text}: must be READER:SEED:NUMBER')
  with worker.scratch() as folder:
    bench = worker.Bench(registry.all_readers()[name], pathlib.Path(folder))
    outcome = bench.run(int(seed), int(number))
  print(f'{outcome.kind} {outcome.reason}')
  return int(outcome.kind in worker.FAILURES)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.reliability.fuzz',
          sys.argv[1:],
      )
  )
