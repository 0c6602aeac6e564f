"""The command of every figure: trains what is missing, writes CSV and pictures.

A figure is a module with

  needs(scale)     the suites and readings that it is drawn from
  table(results)   rows of plain numbers, from results by name
  figure(rows)     the picture, from those rows alone

so that the CSV holds all that the picture shows and `--redraw` needs no suite.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import os
import pathlib
import sys
import time
import types
from typing import Any

from absl import flags

from experiments.figures import drawing
from experiments.nano import made
from experiments.suites import results, scales, side_by_side, suites
from jumprelu import errors
from jumprelu.files import cache_folder
from jumprelu.run import main as main_lib

_EXPERIMENTS = pathlib.Path(__file__).parents[1]


def main(figures: Sequence[Any], doc: str, name: str) -> int:
  """Runs the command of these figures and returns the exit code."""
  command = types.SimpleNamespace(
      __doc__=doc,
      define_flags=define_flags,
      run=functools.partial(run, figures),
  )
  return main_lib.run_command(
      command, f'python -m experiments.{name}', sys.argv[1:]
  )


def figure_main(name: str) -> int:
  """Runs the command of the figure whose file was started."""
  figure = sys.modules['__main__']
  name = f'figures.{pathlib.Path(name).stem}'
  return main([figure], figure.__doc__ or '', name)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags that all figures share."""
  flags.DEFINE_enum(
      'scale',
      'nano',
      list(scales.SCALES),
      'How large: nano runs on a CPU; the others print suites and cost, and run'
      ' where accelerators are.',
      flag_values=flag_values,
  )
  flags.DEFINE_boolean(
      'quick',
      False,
      'Short for --scale=quick: a few steps, to see that the code runs.',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'work',
      'experiments_work',
      'Folder for trained suites; what is finished there is not done again.',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'out',
      None,
      'Folder for CSV, PNG and PDF (default: experiments/results/SCALE, and'
      ' WORK/SCALE/figures if quick).',
      flag_values=flag_values,
  )
  flags.DEFINE_integer(
      'jobs',
      0,
      'Suites to make at once, each in a process of its own; 0: two on a CPU of'
      ' more than one core, else one.',
      0,
      flag_values=flag_values,
  )
  flags.DEFINE_boolean(
      'redraw',
      False,
      'Draw again from the CSV files in --out; nothing is trained.',
      flag_values=flag_values,
  )


def run(figures: Sequence[Any], flag_values: flags.FlagValues) -> int:
  """Trains, measures, tabulates and draws; returns the exit code."""
  scale = scales.SCALES['quick' if flag_values.quick else flag_values.scale]
  work = pathlib.Path(flag_values.work) / scale.name
  default = _EXPERIMENTS / 'results' / scale.name
  if scale.name == 'quick':
    default = work / 'figures'
  out = pathlib.Path(flag_values.out or default)
  if flag_values.redraw:
    for figure in figures:
      _draw(figure, out)
    return 0
  if scale.topology and not _can_run(figures, scale):
    return 0
  from jumprelu.run import preemption as preemption_lib

  cache_folder.keep_programs()  # Most suites share most of theirs.
  config = preemption_lib.Config(watchdog_seconds=0)
  with preemption_lib.start(config) as preemption:
    try:
      _make(
          figures,
          scale,
          work,
          out,
          jobs=flag_values.jobs or _jobs(scale),
          should_stop=preemption.reached,
      )
    except results.Preempted as stopped:
      print(
          f'{work}: {stopped} saved; the same command goes on',
          file=sys.stderr,
      )
      return preemption_lib.EXIT_PREEMPTED
  return 0


def _jobs(scale: scales.Scale) -> int:
  """How many suites are made at once: accelerators take one."""
  return 1 if scale.topology or os.cpu_count() == 1 else 2


def _make(
    figures: Sequence[Any],
    scale: scales.Scale,
    work: pathlib.Path,
    out: pathlib.Path,
    *,
    jobs: int,
    should_stop: Callable[[int], bool],
) -> None:
  """Makes what is missing, and each figure as soon as its suites are there."""
  needs = _all_needs(figures, scale)
  missing = [need for need in needs if not results.is_stored(need, work)]
  have = {need.name for need in needs} - {need.name for need in missing}
  waiting = _draw_ready(figures, scale, work, out, have=have)
  clock = _Clock(missing)
  make = _in_turn
  if jobs > 1:
    make = functools.partial(side_by_side.obtained, jobs=jobs)
  for need in make(
      missing,
      work,
      on_start=clock.start,
      should_stop=should_stop,
  ):
    clock.end(need)
    have.add(need.name)
    waiting = _draw_ready(waiting, scale, work, out, have=have)


def _draw_ready(
    figures: Sequence[Any],
    scale: scales.Scale,
    work: pathlib.Path,
    out: pathlib.Path,
    *,
    have: set[str],
) -> list[Any]:
  """Makes the figures whose suites are there; returns the others."""
  waiting = []
  for figure in figures:
    needs = figure.needs(scale)
    if not {need.name for need in needs} <= have:
      waiting.append(figure)
      continue
    found = {need.name: results.obtain(need, work) for need in needs}
    drawing.write_csv(figure.table(found), out / f'{_name(figure)}.csv')
    _draw(figure, out)
  return waiting


def _in_turn(
    needs: Sequence[Any],
    work: pathlib.Path,
    *,
    on_start: Callable[[Any], None],
    should_stop: Callable[[int], bool],
) -> Iterator[Any]:
  """Yields suites and readings as they are made, in this process."""
  for need in needs:
    on_start(need)
    results.obtain(need, work, should_stop=should_stop)
    yield need


def _draw(figure: Any, out: pathlib.Path) -> None:
  name = _name(figure)
  path = out / f'{name}.csv'
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: not there; run without --redraw')
  drawing.save(figure.figure(drawing.read_csv(path)), out / name)
  print(f'{out / name}.png', flush=True)


def _name(figure: Any) -> str:
  return pathlib.Path(figure.__file__).stem


def _all_needs(
    figures: Iterable[Any], scale: scales.Scale
) -> list[suites.Suite | suites.Reading]:
  """All suites and readings, each once, in the order of their figures."""
  found = {}
  for figure in figures:
    for need in figure.needs(scale):
      if found.setdefault(need.name, need) != need:
        raise ValueError(f'two suites are called {need.name}')
  return list(found.values())


class _Clock:
  """Tells what is being made, and how long the rest will take.

  By tokens x width x members, which is right for what takes long.
  """

  def __init__(self, needs: Sequence[Any]):
    self._costs = {need.name: _cost(need) for need in needs}
    self._count, self._started = len(self._costs), 0
    self._done, self._begin = 0.0, time.monotonic()

  def start(self, need: Any) -> None:
    """Prints what is made next."""
    self._started += 1
    line = f'suite {self._started} of {self._count}: {need.name}'
    if self._done:
      seconds = time.monotonic() - self._begin
      left = sum(self._costs.values()) * seconds / self._done
      line += f', about {left / 60:.0f} minutes left'
    print(line, file=sys.stderr, flush=True)

  def end(self, need: Any) -> None:
    """Counts what has been made."""
    self._done += self._costs.pop(need.name)


def _cost(need: suites.Suite | suites.Reading) -> float:
  from jumprelu.training import config as config_lib

  suite = need.suite if isinstance(need, suites.Reading) else need
  config = made.resolve(suite.config)
  members = config_lib.members(config)
  tokens = config.eval.tokens
  if not isinstance(need, suites.Reading):
    tokens += config.tokens
  # What does not grow: compiling, loading, the language model.
  return 512 * 2e6 + tokens * sum(member.width for member in members)


def _can_run(figures: Sequence[Any], scale: scales.Scale) -> bool:
  """Prints suites and cost; says whether they can be run here and now."""
  from jumprelu.planning import chips, plan
  from jumprelu.training import run_digest

  request = plan.Request(chips.parse(scale.topology))
  trained = [
      need
      for need in _all_needs(figures, scale)
      if isinstance(need, suites.Suite)
  ]
  for suite in trained:
    config = made.resolve(suite.config)
    print(f'== {suite.name}\n{run_digest.commands(config)}\n')
    print(plan.table(plan.make_plan(config, request)) + '\n')
  import jax

  from jumprelu import lm

  if jax.default_backend() == 'cpu':
    print('There is no accelerator here, so nothing was run.')
    return False
  lm.find(str(scale.base['model']))
  return True
