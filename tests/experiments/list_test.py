"""`python -m experiments` lists the figures; listing and redrawing are light."""

import pathlib
import shutil
import subprocess
import sys

from absl import flags
import pytest

from experiments import __main__ as listing
from experiments import all as all_lib
from experiments.benchmarking import benchmark_job
from experiments.suites import scales
from jumprelu.run import main

_ROOT = pathlib.Path(all_lib.__file__).parents[1]
_LISTED = {figure.name: figure for figure in listing.figures()}


def _run(*argv):
  return main.run_command(listing, 'python -m experiments', argv)


def _minutes(cost):
  value, unit = cost.split()
  return float(value) * {'s': 1 / 60, 'min': 1}[unit]


def _names(printed):
  """Returns the files of a printed table."""
  table = printed.partition('\n\n')[0].splitlines()
  return [line.split()[0] for line in table[1:]]


@pytest.mark.parametrize('argv', [[], ['--list']])
def test_all_figures_are_listed_with_their_cost(argv, capsys):
  assert _run(*argv) == 0
  printed = capsys.readouterr().out
  assert set(_names(printed)) == {
      figure.__name__.rpartition('.')[2] for figure in all_lib.FIGURES
  }
  assert max(map(len, printed.splitlines())) <= 140
  (line,) = [x for x in printed.splitlines() if x.startswith('scope_layers')]
  assert '16 min' in line and 'Gemma Scope 2' in line and 'layer_*' in line


@pytest.mark.parametrize(
    'words, expected',
    [
        (['2407.14435'], 'jumprelu_fidelity'),
        # A guess of a name.
        (['jumprelu_shrinkage'], 'gated_shrinkage'),
        (['Gated', '15'], 'gated_toy_mixture'),
        (['LADDER'], 'scope_splitting'),
    ],
)
def test_words_select_figures(words, expected, capsys):
  assert _run(*words) == 0
  names = _names(capsys.readouterr().out)
  assert expected in names and len(names) < len(_LISTED)


def test_a_paper_selects_its_own_figures(capsys):
  assert _run('2404.16014', 'shrinkage') == 0
  assert 'scope_layers' not in _names(capsys.readouterr().out)


def test_unknown_words_are_one_line_and_exit_2(capsys):
  assert _run('no_such', 'figure') == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert 'no figure has the words no_such figure' in line


def test_a_figure_with_more_suites_does_not_cost_less():
  needs = {
      figure.__name__.rpartition('.')[2]: {
          need.name for need in figure.needs(scales.NANO)
      }
      for figure in all_lib.FIGURES
  }
  for one, its in needs.items():
    for other, others in needs.items():
      if its <= others:
        costs = [_minutes(_LISTED[name].cost) for name in (one, other)]
        assert costs[0] <= costs[1], (one, other)
  toys = {name for name, its in needs.items() if not its}
  assert {name for name, f in _LISTED.items() if f.suites == 'none'} == toys


# With jax missing, any import of it fails.
_WITHOUT_JAX = """
import runpy, sys
sys.modules['jax'] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
"""


def _run_without_jax(*argv):
  return subprocess.run(
      [sys.executable, '-c', _WITHOUT_JAX, *argv],
      cwd=_ROOT, capture_output=True, text=True, timeout=120, check=False,
  )  # fmt: skip


def test_the_list_needs_no_jax():
  done = _run_without_jax('experiments')
  assert done.returncode == 0, done.stderr
  assert 'scope_layers' in done.stdout


@pytest.mark.parametrize('name', ['jumprelu_fidelity', 'gated_shrinkage'])
def test_pictures_are_redrawn_without_jax(name, tmp_path):
  stored = _ROOT / 'experiments' / 'results' / 'nano' / f'{name}.csv'
  shutil.copy(stored, tmp_path)
  done = _run_without_jax(
      f'experiments.figures.{name}', '--redraw', f'--out={tmp_path}'
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / f'{name}.png').exists()
  assert (tmp_path / f'{name}.pdf').exists()


def test_numbers_may_be_written_with_letters():
  """The flags of the experiments read 2M as those of the commands do."""
  values = flags.FlagValues()
  benchmark_job.define_flags(values)
  values(['x', '--tokens=2M'])
  assert values.tokens == 2_000_000
