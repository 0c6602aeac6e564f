"""Whether the members of a table have settled over the last doubling of tokens.

Reads the tables of one figure at a scale and at the scale with half of its
tokens. In both the learning rate decays to 0. A member has settled if its L0
and its FVU on held-out text differ by less than 2 % between the two; otherwise
its verdict is 'open', and the moves are the trend.

  python -m experiments.settled FULL.csv HALF.csv

Parts of the real run may be named, too; members without a counterpart with half
of the tokens are left out.
"""

from collections.abc import Mapping, Sequence
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags

from experiments import findings
from experiments.figures import drawing
from jumprelu import errors
from jumprelu.run import main as main_lib

POSITIONAL = 'tables'
# The largest move of a settled member, as a share.
_LIMIT = 0.02
# Columns that identify a member; a table may lack some of them.
_IDENTITY = (
    'option', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'target_l0', 'seed',
)  # fmt: skip
_HEADS = (
    'member', 'L0', 'FVU held-out', 'FVU train', 'dead', 'L0 moved',
    'FVU moved', 'verdict',
)  # fmt: skip


class Settling(NamedTuple):
  """A member's row at all tokens and its moves since half of them.

  Attributes:
    row: The row of the table with all tokens.
    l0: The relative change of L0 since half of the tokens.
    fvu: The relative change of the FVU on held-out text.
  """

  row: drawing.Row
  l0: float
  fvu: float

  @property
  def settled(self) -> bool:
    """Whether both moves are below the limit."""
    return max(abs(self.l0), abs(self.fvu)) < _LIMIT


def compare(
    full: Sequence[drawing.Row], half: Sequence[drawing.Row]
) -> list[Settling]:
  """Returns the moves of the members of `half`, in the order of `full`.

  Args:
    full: The rows at all tokens.
    half: The rows at half of the tokens, in any order.

  Raises:
    UserError: `full` lacks a member of `half`, or its tokens are not twice
      those of `half`.
  """
  before = {_identity(row): row for row in half}
  if not before.keys() <= {_identity(row) for row in full}:
    raise errors.UserError(
        'the second table has members that the first lacks; name the same'
        ' figure, or part of the real run, with all tokens and with half'
    )
  moves = []
  for row in full:
    old = before.get(_identity(row))
    if old is None:
      continue
    if row['training_tokens'] != 2 * old['training_tokens']:
      raise errors.UserError(
          f'training_tokens: {row["training_tokens"]} is not twice'
          f' {old["training_tokens"]}; name first the table with more tokens'
      )
    moves.append(Settling(row, *(row[m] / old[m] - 1 for m in ('l0', 'fvu'))))
  return moves


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
  return tuple(row.get(name) for name in _IDENTITY)


def lines(moves: Sequence[Settling]) -> list[list[str]]:
  """Returns one line of the table per member."""
  # Columns in which members agree are not part of their names.
  differ = [
      name
      for name in _IDENTITY
      if len({move.row.get(name) for move in moves}) > 1
  ]
  return [
      [
          ' '.join(filter(None, (_name(n, move.row[n]) for n in differ))),
          f'{move.row["l0"]:.1f}',
          f'{move.row["fvu"]:.4f}',
          _number(move.row.get('train_fvu'), '.4f'),
          _number(move.row.get('dead_share'), '.1%'),
          f'{move.l0:+.1%}',
          f'{move.fvu:+.1%}',
          'settled' if move.settled else 'open',
      ]
      for move in moves
  ]


def _name(column: str, value: Any) -> str:
  if column in ('option', 'site', 'variant'):
    return str(value)
  words = {'sparsity_coefficient': 'coefficient', 'target_l0': 'k or target'}
  # A member has a coefficient or a target, and 0 as the other.
  if column in words and not value:
    return ''
  return f'{words.get(column, column)} {value:g}'


def _number(value: float | None, form: str) -> str:
  return '' if value is None else format(value, form)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flag of the two tables."""
  flags.DEFINE_list(
      'tables',
      [],
      'CSV files of one figure, at all tokens and at half of them (the'
      ' arguments).',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table and returns the exit code."""
  paths = [pathlib.Path(path) for path in flag_values.tables]
  if len(paths) != 2:
    raise errors.UserError(f'{len(paths)} tables; name two: FULL.csv HALF.csv')
  for path in paths:
    if not path.is_file():
      raise errors.MissingInputError(f'{path}: missing; name an existing table')
  full, half = map(drawing.read_csv, paths)
  print(findings.markdown(_HEADS, lines(compare(full, half))))
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.settled',
          sys.argv[1:],
      )
  )
