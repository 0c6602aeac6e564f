"""Names of runs and SAEs in legends: only the parts that differ."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# Other variants have their own names.
VARIANTS = {'jumprelu': 'JumpReLU'}
# The largest number of parts of a path in a name, if they suffice.
_NAME_PARTS = 2


def run_names(paths: Sequence[str]) -> list[str]:
  """Returns a short name per path: the parts in which the paths differ.

  Leading and trailing folders that all paths share are left out. The last two
  of the other parts are the name, if they identify the path. The name of a
  single path is its last part.
  """
  parts = [path.rstrip('/').split('/') for path in paths]
  first, last = 0, 0
  shortest = min(map(len, parts))
  while first < shortest - 1 and len({p[first] for p in parts}) == 1:
    first += 1
  while last < shortest - first - 1 and len({p[-1 - last] for p in parts}) == 1:
    last += 1
  differing = [p[first : len(p) - last] for p in parts]
  ends = ['/'.join(p[-_NAME_PARTS:]) for p in differing]
  if len(set(ends)) == len(ends):
    return ends
  return ['/'.join(p) for p in differing]


def request(row: Row) -> str:
  """Returns a row's target L0, or else its sparsity coefficient, as text.

  The text is empty if the row has neither, as rows of published SAEs.
  """
  if row.get('target_l0'):
    return f'L0 → {row["target_l0"]:g}'
  if row.get('sparsity_coefficient') is None:
    return ''
  mantissa, exponent = f'{row["sparsity_coefficient"]:.3e}'.split('e')
  mantissa = f'{float(mantissa):g}'
  if mantissa == '0':
    return r'$\lambda = 0$'
  power = f'10^{{{int(exponent)}}}'
  number = power if mantissa == '1' else rf'{mantissa}\cdot {power}'
  return rf'$\lambda = {number}$'


def differing(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
  """Returns the columns in which the rows have several values."""
  return [n for n in names if len({row.get(n) for row in rows}) > 1]


def joined(row: Row, columns: Sequence[str]) -> str:
  """Returns the values of columns as the name of a curve.

  Args:
    row: A row with the columns.
    columns: Any of run, layer, width, variant and seed.
  """
  text = {
      'run': '{}',
      'model': '{}',
      'layer': 'layer {}',
      'width': 'width {:,}',
      'variant': '{}',
      'seed': 'seed {}',
  }
  values = {**row, 'variant': VARIANTS.get(row['variant'], row['variant'])}
  return ' · '.join(text[name].format(values[name]) for name in columns)


def listed(word: str, values: Sequence[Any]) -> str:
  """Returns `layer 2`, or `layers 2, 5` for several values."""
  values = sorted(set(values))
  return f'{word}{"s" * (len(values) > 1)} {", ".join(map(str, values))}'


def between(values: Sequence[int]) -> str:
  """Returns the number, or the smallest and the largest of several."""
  low, high = min(values), max(values)
  return f'{low:,}' if low == high else f'{low:,} to {high:,}'
