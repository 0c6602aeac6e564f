"""Draws the pictures of the real run from its CSV files.

  variants  FVU and delta loss against L0, one curve per variant, a column per
            width
  widths    the same, one curve per width of JumpReLU
  sites     the same, a column per site

A picture is drawn as far as its parts (`suites.py`) are finished, and skipped
if none of them is. Its caption names the parts' model, text, tokens and seeds.

  python -m experiments.real.pictures
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
import sys
import types
from typing import Any

from absl import flags

from experiments.figures import drawing, panels, scope_width
from jumprelu import errors
from jumprelu.plots import sheets
from jumprelu.run import main as main_lib

POSITIONAL = 'results'

_RESULTS = pathlib.Path(__file__).parents[1] / 'results' / 'gemma3_270m'
_METRICS = ('delta_loss', 'fvu')
_VARIANTS = {
    'relu': 'ReLU + L1',
    'gated': 'Gated (RI-L1)',
    'topk': 'TopK',
    'batch_topk': 'BatchTopK',
    'jumprelu': 'JumpReLU',
}
# Parts with half of the tokens, which `experiments.settled` compares.
_HALF = 'half_'


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_string(
      'results',
      str(_RESULTS),
      'Folder of the CSV files and pictures (the argument).',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Draws the pictures and returns the exit code."""
  folder = pathlib.Path(flag_values.results)
  rows = read(folder)
  for name, (select, draw) in PICTURES.items():
    chosen = select(rows)
    if chosen:
      sheets.save(draw(chosen), folder / name)
      print(folder / f'{name}.png')
    else:
      print(f'{name}: no part is finished')
  return 0


def read(folder: pathlib.Path) -> list[drawing.Row]:
  """Returns the rows of all parts that have all of their tokens.

  Raises:
    MissingInputError: The folder has no CSV file.
  """
  paths = sorted(folder.glob('*.csv'))
  if not paths:
    raise errors.MissingInputError(
        f'{folder}: no CSV file; run python -m experiments.real.run first'
    )
  return [
      row
      for path in paths
      # Tables of measures have a second name: PART.MEASURE.csv.
      if not path.stem.startswith(_HALF) and '.' not in path.stem
      for row in drawing.read_csv(path)
  ]


def _residual(rows: Sequence[drawing.Row]) -> list[drawing.Row]:
  """Returns the rows of the residual stream of the most tokens."""
  rows = drawing.where(rows, site='resid_post')
  tokens = max((row['training_tokens'] for row in rows), default=0)
  return drawing.where(rows, training_tokens=tokens)


def _of_widths(rows: Sequence[drawing.Row]) -> list[drawing.Row]:
  """Returns JumpReLU's rows if there are several widths."""
  rows = drawing.where(_residual(rows), variant='jumprelu', target_l0=0)
  return rows if len({row['width'] for row in rows}) > 1 else []


def _of_variants(rows: Sequence[drawing.Row]) -> list[drawing.Row]:
  """Returns the rows of the widths at which there are several variants."""
  rows = _residual(rows)
  variants: dict[int, set[str]] = {}
  for row in rows:
    variants.setdefault(row['width'], set()).add(row['variant'])
  return [row for row in rows if len(variants[row['width']]) > 1]


def _of_sites(rows: Sequence[drawing.Row]) -> list[drawing.Row]:
  """Returns the rows of the other sites."""
  return [row for row in rows if row['site'] != 'resid_post']


def _draw_variants(rows: Sequence[drawing.Row]) -> Any:
  widths = sorted({row['width'] for row in rows})
  return panels.grid(
      rows,
      _METRICS,
      functools.partial(panels.curves, column='variant', labels=_VARIANTS),
      column='width',
      titles={width: f'{width:,} latents' for width in widths},
  )


def _draw_sites(rows: Sequence[drawing.Row]) -> Any:
  return panels.by_site(rows, _METRICS, panels.variant_curves)


Select = Callable[[Sequence[drawing.Row]], list[drawing.Row]]
Draw = Callable[[Sequence[drawing.Row]], Any]
PICTURES: Mapping[str, tuple[Select, Draw]] = types.MappingProxyType({
    'variants': (_of_variants, _draw_variants),
    'widths': (_of_widths, scope_width.figure),
    'sites': (_of_sites, _draw_sites),
})  # fmt: skip


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.pictures',
          sys.argv[1:],
      )
  )
