"""Lists the figures of the papers, with their suites and their cost.

Words select the figures whose number, file, suites or description has them all:

  python -m experiments
  python -m experiments jumprelu shrinkage
  python -m experiments 2408.05147      # the paper's number on arXiv

The cost is the time of the suites at nano scale on two cores; figures that name
the same suite share it. README.md in this folder has the papers' claims and
the measurements.
"""

import ast
import pathlib
import re
import sys
import types
from typing import NamedTuple

from absl import flags

from jumprelu import errors
from jumprelu.run import main as main_lib

_HERE = pathlib.Path(__file__).parent


POSITIONAL = 'words'


class Figure(NamedTuple):
  """A row of the table in README.md, and the module's docstring."""

  name: str
  figure: str
  suites: str
  cost: str
  doc: str

  def has(self, word: str) -> bool:
    """Returns whether the figure mentions a word, in any case."""
    return word.lower() in ' '.join(self).lower()


def figures() -> list[Figure]:
  """Returns the figures in the order of README.md, without importing them."""
  text = (_HERE / 'README.md').read_text('utf-8')
  rows = re.findall(
      r'^\| ([^|]+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \|', text, re.MULTILINE
  )
  listed = []
  for figure, name, suites, cost in rows:
    source = (_HERE / 'figures' / f'{name}.py').read_text('utf-8')
    doc = ast.get_docstring(ast.parse(source)) or ''
    listed.append(Figure(name, figure, suites, cost, doc))
  return listed


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_list(
      'words', [], 'Only figures that have all words.', flag_values=flag_values
  )
  flags.DEFINE_boolean(
      'list', True, 'List the figures.', flag_values=flag_values
  )


def run(flag_values: flags.FlagValues) -> None:
  """Prints the table."""
  text = ' '.join(flag_values.words)
  words = text.replace('_', ' ').split()
  selected = [f for f in figures() if all(map(f.has, words))]
  if not selected:
    raise errors.UserError(
        f'no figure has the words {text}; python -m experiments lists all'
    )
  rows = [('file', 'figure', 'cost', 'suites')]
  rows += [(f.name, f.figure, f.cost, f.suites) for f in selected]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
      f'{name:{widths[0]}}  {figure:{widths[1]}}  {cost:>{widths[2]}}  {suites}'
      for name, figure, cost, suites in rows
  ]
  lines += [
      '',
      f'One figure: python -m experiments.figures.{selected[0].name}',
      'All figures: python -m experiments.all (82 min)',
  ]
  print('\n'.join(lines))


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          types.SimpleNamespace(
              __doc__=__doc__,
              define_flags=define_flags,
              run=run,
              POSITIONAL='words',
          ),
          'python -m experiments',
          sys.argv[1:],
      )
  )
