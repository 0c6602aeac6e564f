"""The command that all figures share: trains suites, writes CSV and pictures.

A figure is a module with three functions:

  needs(scale)     returns the suites and readings that the figure uses
  table(results)   returns rows of plain numbers, from results by name
  figure(rows)     returns the picture, drawn from those rows alone

Figures without suites may also have `record()`, the columns of `records.py`.

The CSV file therefore holds all the numbers of the picture, and `--redraw`
needs no suite. Modules that import JAX are imported inside functions, because
`--redraw` needs no JAX either.
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
from experiments.suites import records, scales, suites
from jumprelu import errors
from jumprelu.files import cache_folder
from jumprelu.plots import sheets
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

_EXPERIMENTS = pathlib.Path(__file__).parents[1]


def main(figures: Sequence[Any], doc: str, name: str) -> int:
  """Runs the command for these figures and returns the exit code."""
  command = types.SimpleNamespace(
      __doc__=doc,
      define_flags=define_flags,
      run=functools.partial(run, figures),
  )
  return main_lib.run_command(
      command, f'python -m experiments.{name}', sys.argv[1:]
  )


def figure_main(name: str) -> int:
  """Runs the command for the figure whose module was started."""
  figure = sys.modules['__main__']
  name = f'figures.{pathlib.Path(name).stem}'
  return main([figure], figure.__doc__ or '', name)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags that all figures share."""
  flags.DEFINE_enum(
      'scale',
      'nano',
      list(scales.SCALES),
      'Size of the suites: nano and quick run on a CPU; the others print the'
      ' suites and their cost, and run on accelerators only.',
      flag_values=flag_values,
  )
  flags.DEFINE_boolean(
      'quick',
      False,
      'Short for --scale=quick: a few steps, to check that the code works.',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'work',
      'experiments_work',
      'Folder for trained suites; suites that it already has are reused.',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'out',
      None,
      'Folder for CSV, PNG and PDF (default: experiments/results/SCALE, or'
      ' WORK/quick/figures with --quick).',
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values,
      'jobs',
      0,
      'Number of suites trained and measured at once, each in a separate'
      ' process; 0: two on a CPU with several cores, otherwise one.',
      lower_bound=0,
  )
  flags.DEFINE_boolean(
      'redraw',
      False,
      'Draw the pictures again from the CSV files in --out; train nothing.',
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
  figures = _of_scale(figures, scale)
  if flag_values.redraw:
    for figure in figures:
      _draw(figure, out)
    return 0
  if scale.topology and not _can_run(figures, scale):
    return 0
  from experiments.suites import results
  from jumprelu.run import preemption as preemption_lib

  # Suites share most of their compiled programs.
  cache_folder.keep_programs()
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
          f'{work}: {stopped} saved; the same command resumes',
          file=sys.stderr,
      )
      return preemption_lib.EXIT_PREEMPTED
  return 0


def _of_scale(figures: Sequence[Any], scale: scales.Scale) -> Sequence[Any]:
  """Returns the figures that the scale has.

  Raises:
    UserError: the scale has none of them.
  """
  kept = [f for f in figures if _name(f) in (scale.figures or [_name(f)])]
  if not kept:
    raise errors.UserError(
        f'--scale={scale.name}: this scale has only the figures'
        f' {", ".join(scale.figures)}; choose one of them or another scale'
    )
  return kept


def _jobs(scale: scales.Scale) -> int:
  """Returns the default of --jobs: one suite at a time on accelerators."""
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
  """Makes missing results, and each figure as soon as its results exist."""
  from experiments.suites import results, side_by_side

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
  """Makes the figures whose results exist; returns the other figures."""
  from experiments.suites import results

  waiting = []
  for figure in figures:
    needs = figure.needs(scale)
    if not {need.name for need in needs} <= have:
      waiting.append(figure)
      continue
    by_name = {need.name: results.obtain(need, work) for need in needs}
    path = out / f'{_name(figure)}.csv'
    # Six digits, so that stored tables are short.
    record = records.of_figure(figure, scale)
    sheets.write_csv(records.add(figure.table(by_name), record), path, digits=6)
    _draw(figure, out)
  return waiting


def _in_turn(
    needs: Sequence[Any],
    work: pathlib.Path,
    *,
    on_start: Callable[[Any], None],
    should_stop: Callable[[int], bool],
) -> Iterator[Any]:
  """Makes suites and readings in this process; yields each when it is done."""
  from experiments.suites import results

  for need in needs:
    on_start(need)
    results.obtain(need, work, should_stop=should_stop)
    yield need


def _draw(figure: Any, out: pathlib.Path) -> None:
  name = _name(figure)
  path = out / f'{name}.csv'
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: missing; run without --redraw')
  sheets.save(figure.figure(drawing.read_csv(path)), out / name)
  print(f'{out / name}.png', flush=True)


def _name(figure: Any) -> str:
  return pathlib.Path(figure.__file__).stem


def _all_needs(
    figures: Iterable[Any], scale: scales.Scale
) -> list[suites.Suite | suites.Reading]:
  """Returns all suites and readings, each once, in the order of figures."""
  by_name = {}
  for figure in figures:
    for need in figure.needs(scale):
      if by_name.setdefault(need.name, need) != need:
        raise ValueError(f'two suites have the name {need.name}; rename one')
  return list(by_name.values())


class _Clock:
  """Progress messages with the estimated time to the end.

  The estimate assumes that time is proportional to `_cost`, which is accurate
  only for suites that take long.
  """

  def __init__(self, needs: Sequence[Any]):
    self._costs = {need.name: _cost(need) for need in needs}
    self._count, self._started = len(self._costs), 0
    self._done, self._begin = 0.0, time.monotonic()

  def start(self, need: Any) -> None:
    """Prints the name of the suite or reading that is made next."""
    self._started += 1
    line = f'suite {self._started} of {self._count}: {need.name}'
    if self._done:
      seconds = time.monotonic() - self._begin
      left = sum(self._costs.values()) * seconds / self._done
      line += f', about {left / 60:.0f} minutes left'
    print(line, file=sys.stderr, flush=True)

  def end(self, need: Any) -> None:
    """Counts a suite or reading that has been made."""
    self._done += self._costs.pop(need.name)


def _cost(need: suites.Suite | suites.Reading) -> float:
  """Returns tokens times the sum of widths, plus a constant."""
  from jumprelu.training import config as config_lib

  suite = need.suite if isinstance(need, suites.Reading) else need
  config = made.resolve(suite.config)
  members = config_lib.members(config)
  tokens = config.eval.tokens
  if not isinstance(need, suites.Reading):
    tokens += config.tokens
  # The constant is for compiling, loading and the language model.
  return 512 * 2e6 + tokens * sum(member.width for member in members)


def _can_run(figures: Sequence[Any], scale: scales.Scale) -> bool:
  """Prints suites and cost; returns whether this machine can run them."""
  from jumprelu.planning import chips, plan, plan_table
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
    print(plan_table.table(plan.make_plan(config, request)) + '\n')
  import jax

  from jumprelu import lm

  if jax.default_backend() == 'cpu':
    print('No accelerator on this machine, so nothing was run.')
    return False
  lm.find(str(scale.base['model']))
  return True
