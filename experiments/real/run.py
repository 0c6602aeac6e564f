r"""Trains and measures parts of the real run, each ending with a CSV file.

A part (`suites.py`) reads activations from a store in --work, which is filled
first if it is not complete. Its SAEs are then trained and measured on held-out
and on training text, and OUT/PART.csv is written. Finished parts are skipped.
Every stage resumes: the store at its first missing block, training at its last
checkpoint. On SIGTERM, or after --hours, the state is saved and the command
exits with code 42; the same command resumes.

  python -m experiments.real.run jumprelu_seeds topk_seed_0 --work=work \
      --model=gemma-3-270m.gguf --data=brown.jsonl,prose.jsonl
  nice -n 19 python -m experiments.real.run all --hours=2 ...

With --delete_stores, a store is deleted after the last of the named parts that
reads it.
"""

from collections.abc import Callable, Sequence
import json
import pathlib
import shutil
import sys
import time
from typing import Any

from absl import flags

from experiments.real import options, suites
from jumprelu import errors
from jumprelu.files import cache_folder, json_files
from jumprelu.plots import sheets
from jumprelu.run import main as main_lib

POSITIONAL = 'parts'
MAIN_FLAGS = ('model', 'data', 'work', 'out', 'hours', 'delete_stores')
EXTRA = 'train'

_OUT = pathlib.Path(__file__).parents[1] / 'results' / 'gemma3_270m'
_DONE = 'done.json'

ShouldStop = Callable[[int], bool]


class Stopped(Exception):
  """Raised after a part's state was saved because the run should stop."""


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  options.define_flags(flag_values)
  flags.DEFINE_list(
      'parts', [], 'Names of parts, or all (the arguments).',
      flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string(
      'work', None, 'Folder for stores and runs.', flag_values=flag_values
  )
  flags.DEFINE_string(
      'out', str(_OUT), 'Folder for CSV files.', flag_values=flag_values
  )
  flags.DEFINE_float(
      'hours', None, 'Hours after which to save and exit.', lower_bound=0.0,
      flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_boolean(
      'delete_stores', False, 'Delete stores that are not read any more.',
      flag_values=flag_values,
  )  # fmt: skip


def run(flag_values: flags.FlagValues) -> int:
  """Runs the parts; returns the exit code."""
  from jumprelu.run import preemption as preemption_lib

  scale = options.scale(flag_values)
  if not flag_values.work:
    raise errors.UserError('--work is needed: a folder for stores and runs')
  chosen = _chosen(scale, flag_values.parts)
  hours = float('inf') if flag_values.hours is None else flag_values.hours
  end = time.monotonic() + 3600 * hours
  cache_folder.keep_programs()
  config = preemption_lib.Config(watchdog_seconds=0)
  with preemption_lib.start(config) as preemption:
    try:
      run_parts(
          scale,
          chosen,
          work=pathlib.Path(flag_values.work),
          out=pathlib.Path(flag_values.out),
          should_stop=lambda n: preemption.reached(n) or time.monotonic() > end,
          delete_stores=flag_values.delete_stores,
      )
    except Stopped as stopped:
      _log(f'{stopped} saved; the same command resumes')
      return preemption_lib.EXIT_PREEMPTED
  return 0


def run_parts(
    scale: suites.Scale,
    chosen: Sequence[suites.Part],
    *,
    work: pathlib.Path,
    out: pathlib.Path,
    should_stop: ShouldStop,
    delete_stores: bool = False,
) -> None:
  """Runs the parts that are not finished, one after another.

  Raises:
    Stopped: `should_stop` returned true, and the state was saved.
  """
  clock = _Clock(scale, [p for p in chosen if not _is_done(p, work, out)])
  for number, part in enumerate(chosen):
    if _is_done(part, work, out):
      _log(f'{part.name}: finished before')
    else:
      clock.start(part)
      run_part(scale, part, work=work, out=out, should_stop=should_stop)
      clock.end(part)
    later = {other.store for other in chosen[number + 1 :]}
    if delete_stores and part.store not in later:
      shutil.rmtree(_store(work, part.store), ignore_errors=True)
    if part is not chosen[-1] and should_stop(0):
      raise Stopped(part.name)


def run_part(
    scale: suites.Scale,
    part: suites.Part,
    *,
    work: pathlib.Path,
    out: pathlib.Path,
    should_stop: ShouldStop,
) -> None:
  """Fills the store if needed, trains and measures; writes the CSV file.

  Raises:
    Stopped: `should_stop` returned true, and the state was saved.
  """
  from jumprelu.training import config as config_lib
  from jumprelu.training import run_dir, train

  folder, store = work / part.name, _store(work, part.store)
  config = config_lib.resolve({**part.config, 'store': str(store)})
  directory = folder / 'run'
  if not run_dir.RunDir(directory).is_done(config.steps):
    fill_store(scale, part.store, work=work, should_stop=should_stop)
    _log(f'{part.name}: training {config.tokens:,} positions')
    outcome = train.train(config, directory, should_stop=should_stop)
    if outcome == train.PREEMPTED:
      raise Stopped(part.name)
  _log(f'{part.name}: measuring')
  for name, rows in measure(part, directory).items():
    path = out / f'{part.name}.{name}.csv' if name else _csv(out, part)
    sheets.write_csv(rows, path, digits=6)
  json_files.write_json(folder / _DONE, {'config': _digest(part)})
  _log(f'{part.name}: {_csv(out, part)}')


def fill_store(
    scale: suites.Scale,
    name: str,
    *,
    work: pathlib.Path,
    should_stop: ShouldStop,
) -> None:
  """Writes the blocks of a store that are missing.

  Raises:
    Stopped: `should_stop` returned true, and the blocks so far are stored.
  """
  from jumprelu.activations.store import record
  from jumprelu.training import config as config_lib
  from jumprelu.training import harvest_store, train

  path = _store(work, name)
  if (path / record.MANIFEST).is_file():
    return
  (store,) = [s for s in suites.stores(scale) if s.name == name]
  overrides = {**suites.harvest_config(scale, store), 'store': str(path)}
  _log(f'store {name}: {", ".join(store.sites)}, {store.tokens:,} positions')
  path.parent.mkdir(parents=True, exist_ok=True)
  outcome = harvest_store.harvest_store(
      config_lib.resolve(overrides), should_stop=should_stop
  )
  if outcome == train.PREEMPTED:
    raise Stopped(f'store {name}')


def measure(
    part: suites.Part, directory: pathlib.Path
) -> dict[str, list[dict[str, Any]]]:
  """Returns tables by name: one of members, named '', and those of measures.

  Members are measured on held-out and on training text. The evaluation on
  held-out text of a part without measures is stored in the run directory, and
  read from it if it is there.
  """
  from experiments.suites import training_text
  from jumprelu.release import publish
  from jumprelu.training import run_digest

  run_ = publish.open_run(directory)
  evaluation = (
      publish.evaluate_members(run_, part.measures)
      if part.measures
      else publish.evaluate_run(run_)
  )
  result = training_text.add(evaluation, run_)
  text = run_digest.portable(run_.config).data.replace(',', ', ')
  # The columns of the tables of all figures.
  origin = {
      'part': part.name,
      'training_tokens': run_.config.tokens,
      'training_text': text,
      'text': text,
  }
  return {
      name: [
          origin | {k: v for k, v in row.items() if k != 'path'} for row in rows
      ]
      for name, rows in {'': result.rows, **result.tables}.items()
  }


class _Clock:
  """Progress lines with the estimated time to the end of all parts.

  The estimate assumes that the time of a part is proportional to its
  operations.
  """

  def __init__(self, scale: suites.Scale, parts: Sequence[suites.Part]):
    from experiments.real import plan

    self._costs = {part.name: plan.sae_flops(part) for part in parts}
    self._count, self._started = len(parts), 0
    self._done, self._begin = 0.0, time.monotonic()

  def start(self, part: suites.Part) -> None:
    """Prints the name of the next part."""
    self._started += 1
    line = f'part {self._started} of {self._count}: {part.name}'
    if self._done:
      seconds = time.monotonic() - self._begin
      left = sum(self._costs.values()) * seconds / self._done
      line += f', about {left / 3600:.1f} hours left'
    _log(line)

  def end(self, part: suites.Part) -> None:
    """Counts a finished part."""
    self._done += self._costs.pop(part.name)


def _chosen(scale: suites.Scale, names: Sequence[str]) -> list[suites.Part]:
  known = ', '.join(part.name for part in suites.parts(scale))
  if not names:
    raise errors.UserError(f'name parts, or all: {known}')
  try:
    return suites.named(scale, names)
  except KeyError as error:
    raise errors.UserError(f'no part {error}; known: {known}') from None


def _is_done(part: suites.Part, work: pathlib.Path, out: pathlib.Path) -> bool:
  """Returns whether the part's CSV file is that of its present config."""
  if not _csv(out, part).is_file():
    return False
  done = json_files.read_json(work / part.name / _DONE, missing_ok=True)
  return done.get('config') == _digest(part)


def _csv(out: pathlib.Path, part: suites.Part) -> pathlib.Path:
  return out / f'{part.name}.csv'


def _digest(part: suites.Part) -> str:
  """Returns the part's config as text, to be compared."""
  return json.dumps(part.config, sort_keys=True, default=str)


def _store(work: pathlib.Path, name: str) -> pathlib.Path:
  return work / 'stores' / name


def _log(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.run',
          sys.argv[1:],
      )
  )
