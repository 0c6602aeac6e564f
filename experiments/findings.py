"""The numbers of docs/reproduction.md, from the figures' CSV files.

To compare members at a common L0, a metric is interpolated between the members
of a seed, linearly in the logarithms of metric and L0. Ratios are computed
within a seed, so that variation shared by all options does not count as
uncertainty. Uncertainties (+-) are two standard errors between seeds.

  python -m experiments.findings
"""

from collections.abc import Callable, Iterable, Sequence
import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np

from experiments.figures import drawing
from jumprelu.run import main as main_lib

_HERE = pathlib.Path(__file__).parent
# L0s at which members are compared.
_LEVELS = (10, 20, 40, 60)

Row = drawing.Row
# Reads the rows of a figure's table by the figure's name.
Read = Callable[[str], list[Row]]


def at_l0(rows: Iterable[Row], metric: str, l0: float) -> float | None:
  """Returns a metric interpolated at an L0.

  Returns None outside the measured range of L0, or if the metric is not
  positive, because it then has no logarithm.
  """
  points = sorted((row['l0'], row[metric]) for row in rows if row.get(metric))
  x, y = np.array(points).T if points else (np.zeros(0), np.zeros(0))
  if not len(x) or not x[0] <= l0 <= x[-1] or y.min() <= 0:
    return None
  return float(np.exp(np.interp(np.log(l0), np.log(x), np.log(y))))


def by_seed(
    rows: Sequence[Row], compute: Callable[[list[Row]], float | None]
) -> dict[int, float]:
  """Returns `compute(rows)` for each seed's rows, without None values."""
  results = {
      seed: compute(drawing.where(rows, seed=seed))
      for seed in sorted({row['seed'] for row in rows})
  }
  return {seed: value for seed, value in results.items() if value is not None}


def spread(values: Iterable[float]) -> str:
  """Returns the mean and two standard errors of seeds' values, as text."""
  array = np.array(list(values), float)
  if not len(array):
    return ''
  if len(array) == 1:
    return f'{array[0]:.3g}'
  error = 2 * array.std(ddof=1) / np.sqrt(len(array))
  digits = max(0, 2 - int(np.floor(np.log10(abs(array.mean()) or 1))))
  return f'{array.mean():.{digits}f} +- {error:.{digits}f}'


def compare(
    rows: Sequence[Row],
    column: str,
    order: Sequence[Any],
    metric: str,
    *,
    levels: Sequence[float] = _LEVELS,
) -> list[list[str]]:
  """Returns a table that compares values of a column at common L0s.

  Returns:
    One row per level and value: the level, the value, the metric, and the ratio
    of the metric to that of the first value of `order`, computed within each
    seed. A row is left out if no seed has members on both sides of the level.
  """
  table = []
  for level in levels:
    first: dict[int, float] = {}
    for i, value in enumerate(order):
      values = by_seed(
          drawing.where(rows, **{column: value}),
          lambda seed_rows, level=level: at_l0(seed_rows, metric, level),
      )
      if not i:
        first = values
      ratios = [values[s] / first[s] for s in values if s in first]
      cells = [spread(values.values()), spread(ratios) if i else '']
      table.append([f'{level:g}', str(value), *cells])
  return [line for line in table if line[2]]


def ranges(
    rows: Sequence[Row], by: Sequence[str], metrics: Sequence[str]
) -> list[list[str]]:
  """Returns one row per group with the range of each metric in it."""
  groups: dict[tuple[Any, ...], list[Row]] = {}
  for row in rows:
    groups.setdefault(tuple(row[name] for name in by), []).append(row)
  table = []
  for key, group in groups.items():
    line = [str(value) for value in key]
    for metric in metrics:
      values = [row[metric] for row in group if row.get(metric) is not None]
      line.append(f'{min(values):.3g} to {max(values):.3g}' if values else '')
    table.append(line)
  return table


def print_table(title: str, heads: Sequence[str], lines: Iterable[Any]) -> None:
  """Prints a title and a table in Markdown, or nothing if it has no lines."""
  lines = list(lines)
  if not lines:
    return
  print(f'\n{title}\n\n{markdown(heads, lines)}')


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
  """Returns a table in Markdown."""
  rule = '|' + '---|' * len(heads)
  rows = ['| ' + ' | '.join(line) + ' |' for line in (heads, *lines)]
  return '\n'.join([rows[0], rule, *rows[1:]])


def _at_l0s(
    title: str,
    rows: Sequence[Row],
    column: str,
    order: Sequence[Any],
    metrics: Sequence[str] = ('fvu', 'delta_loss'),
) -> None:
  """Prints one table per metric: values of a column at common L0s."""
  for metric in metrics:
    print_table(
        f'{title}: {metric} at an L0, and its ratio to the first',
        ('L0', column, metric, 'ratio'),
        compare(rows, column, order, metric),
    )


def _headline(read: Read) -> None:
  rows = read('jumprelu_fidelity')
  for site in _values(rows, 'site'):
    order = ('jumprelu', 'topk', 'gated', 'relu')
    _at_l0s(site, drawing.where(rows, site=site), 'variant', order)
  print_table(
      'Gamma and shares of frequent latents, over all members',
      ('site', 'variant', 'L0', 'gamma', '> 10 %', '> 1 %', 'dead'),
      ranges(
          rows,
          ('site', 'variant'),
          ('l0', 'gamma', 'over_10_percent_share', 'over_1_percent_share',
           'dead_share'),
      ),
  )  # fmt: skip
  print_table(
      'Gradient pursuit instead of the encoder',
      ('variant', 'coefficient', 'L0', 'FVU', 'by pursuit'),
      ranges(
          read('gated_ito'),
          ('variant', 'sparsity_coefficient'),
          ('l0', 'encoder_fvu', 'pursuit_fvu'),
      ),
  )


def _jumprelu(read: Read) -> None:
  rows = read('jumprelu_target_l0')
  print_table(
      'L0 over the target',
      ('site', 'target', 'ratio'),
      ranges(
          drawing.where(rows, kind='target'), ('site', 'target_l0'), ('ratio',)
      ),
  )
  for site in _values(rows, 'site'):
    site_rows = drawing.where(rows, site=site)
    kinds = ('coefficient', 'target')
    _at_l0s(f'target L0, {site}', site_rows, 'kind', kinds)
  rows = read('jumprelu_bandwidth')
  print_table(
      'L0 and FVU by bandwidth and coefficient',
      ('bandwidth', 'coefficient', 'L0', 'FVU', 'dead'),
      ranges(
          rows,
          ('bandwidth', 'sparsity_coefficient'),
          ('l0', 'fvu', 'dead_share'),
      ),
  )
  # The default is first, because ratios are relative to the first value.
  order = sorted(_values(rows, 'bandwidth'), key=lambda value: value != 0.1)
  _at_l0s('bandwidth', rows, 'bandwidth', order)


def _scope(read: Read) -> None:
  for name in ('scope_width', 'scope_layers'):
    rows = drawing.where(read(name), variant='jumprelu')
    column = name.removeprefix('scope_').rstrip('s')
    for site in _values(rows, 'site'):
      site_rows = drawing.where(rows, site=site)
      order = sorted(_values(site_rows, column))
      _at_l0s(f'{column}, {site}', site_rows, column, order)
  print_table(
      'Cost of rounding an SAE to bfloat16, in nats',
      ('site', 'model', 'cost', 'its standard error', 'delta loss'),
      ranges(
          drawing.where(read('scope_precision'), sae_dtype='bfloat16'),
          ('site', 'lm_dtype'),
          ('rounding', 'rounding_stderr', 'delta_loss'),
      ),
  )
  print_table(
      'r_L0',
      ('site', 'L0', 'r_L0'),
      ranges(read('scope_uniformity'), ('site',), ('l0', 'r_l0')),
  )
  rows = read('scope_transcoders')
  for layer in sorted(_values(rows, 'layer')):
    layer_rows = drawing.where(rows, layer=layer)
    sites = ('mlp_out', 'transcoder')
    _at_l0s(f'layer {layer}', layer_rows, 'site', sites, ('delta_loss',))
  rows = read('scope_text_subsets')
  for site in _values(rows, 'site'):
    site_rows = drawing.where(rows, site=site)
    texts = _values(site_rows, 'text')
    _at_l0s(f'text, {site}', site_rows, 'text', texts)
  rows = read('scope_transfer')
  _at_l0s('chat', rows, 'saes', _values(rows, 'saes'))


def _options(read: Read) -> None:
  for name in (
      'jumprelu_kernels',
      'jumprelu_pre_acts',
      'gated_ablations',
      'gated_rescaled',
  ):
    rows = read(name)
    _at_l0s(name, rows, 'option', _values(rows, 'option'))
    print_table(
        f'{name}: ranges over all members',
        ('option', 'coefficient', 'L0', 'gamma', 'dead'),
        ranges(
            rows,
            ('option', 'sparsity_coefficient'),
            ('l0', 'gamma', 'dead_share'),
        ),
    )


def _values(rows: Iterable[Row], column: str) -> list[Any]:
  return list(dict.fromkeys(row[column] for row in rows))


def print_all(folder: pathlib.Path) -> None:
  """Prints all tables; figures without a CSV file are named on stderr."""

  def read(name: str) -> list[Row]:
    path = folder / f'{name}.csv'
    if path.is_file():
      return drawing.read_csv(path)
    print(
        f'{path}: missing; run python -m experiments.figures.{name}',
        file=sys.stderr,
    )
    return []

  for part in (_headline, _jumprelu, _scope, _options):
    part(read)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flag for the folder of CSV files."""
  flags.DEFINE_string(
      'results',
      str(_HERE / 'results' / 'nano'),
      'Folder with the CSV files of figures.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints all tables and returns the exit code."""
  print_all(pathlib.Path(flag_values.results))
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.findings',
          sys.argv[1:],
      )
  )
