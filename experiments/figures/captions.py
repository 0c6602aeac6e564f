"""Captions above figures, made from the columns of their tables.

A caption names the model, layers, sites, SAEs, tokens, seeds and the meaning of
error bars, so that a picture is clear without its document.
"""

from collections.abc import Iterable, Sequence
import re
from typing import Any

from experiments.figures import drawing
from jumprelu.plots import labels as labels_lib
from jumprelu.plots import plot_style, sheets

# Without options, in which the SAEs of figures differ.
_VARIANTS = drawing.VARIANTS | {
    'relu': 'ReLU',
    'relu_rescaled': 'ReLU (rescaled and shifted)',
    'gated': 'Gated',
}


def write(
    fig: Any,
    rows: Sequence[drawing.Row],
    metrics: Iterable[str] = (),
    *,
    bars: str = '',
    note: str = '',
) -> None:
  """Writes the caption above the panels.

  Args:
    fig: The figure.
    rows: The rows of its table, with the columns of `records`.
    metrics: The metrics with error bars, for their meaning.
    bars: The meaning of error bars, instead of that of `metrics`.
    note: A remark at the end.
  """
  rows = [row for row in rows if row.get('variant') != drawing.RELEASED]
  parts = [*_place(rows), *_saes(rows), *_tokens(rows)]
  parts += [bars or _bars(rows, metrics), note]
  text = ' · '.join(part for part in parts if part)
  # No line ends within a number and its unit.
  text = re.sub(r'(?<=[±\d]) (?=\d|seed|token|latent|standard)', '\u00a0', text)
  sheets.heading(fig, text)
  lines = fig.get_suptitle().count('\n') + 1
  fig.set_figheight(fig.get_figheight() + 0.17 * lines)


def _values(rows: Iterable[drawing.Row], column: str) -> list[Any]:
  """Returns the values of a column, each once, without empty cells."""
  values = dict.fromkeys(row.get(column) for row in rows)
  return [value for value in values if value not in (None, '')]


def _place(rows: Sequence[drawing.Row]) -> list[str]:
  parts = [', '.join(map(str, _values(rows, 'model')))]
  layers = _values(rows, 'layer')
  if layers:
    parts[0] += f', {labels_lib.listed("layer", layers)}'
  sites = [plot_style.SITES.get(s, str(s)) for s in _values(rows, 'site')]
  return [*parts, ', '.join(sites).lower().replace('mlp', 'MLP')]


def _saes(rows: Sequence[drawing.Row]) -> list[str]:
  variants = [
      _VARIANTS.get(name, str(name))
      for name in _values(rows, 'variant')
      if name != 'best'
  ]
  # A pair of widths has two columns.
  widths = {*_values(rows, 'width'), *_values(rows, 'from_width')}
  names = ', '.join(variants)
  if not widths:
    return [names]
  unit = 'latent' if widths == {1} else 'latents'
  return [f'{names} of {_listed(widths)} {unit}'.strip()]


def _listed(numbers: Iterable[int]) -> str:
  return ', '.join(f'{number:,}' for number in sorted(numbers))


def _tokens(rows: Sequence[drawing.Row]) -> list[str]:
  parts = []
  for column, unit in (
      ('training_tokens', 'tokens'),
      ('training_rows', 'rows'),
  ):
    if values := _values(rows, column):
      text = ', '.join(map(str, _values(rows, 'training_text')))
      words = f'trained on {_listed(values)} {unit}'
      words += f' of {text}' if text else ''
      parts.append(words + _epochs(rows) * (unit == 'tokens'))
  texts = _values(rows, 'text')
  if texts:
    measured = _values(rows, 'tokens_evaluated')
    count = f', {labels_lib.between(measured)} tokens' if measured else ''
    parts.append(f'measured on held-out text of {", ".join(texts)}{count}')
  seeds = {*_values(rows, 'seed'), *_values(rows, 'from_seed')}
  if seeds:
    parts.append('1 seed' if len(seeds) == 1 else f'{len(seeds)} seeds')
  return parts


def _epochs(rows: Sequence[drawing.Row]) -> str:
  """Returns the passes over the training text, if rows have them."""
  epochs, unique = _values(rows, 'epochs'), _values(rows, 'unique_tokens')
  if not epochs:
    return ''
  listed = ', '.join(f'{value:.2g}' for value in sorted(epochs))
  return f', {listed} epochs of {_listed(unique)} tokens'


def _bars(rows: Sequence[drawing.Row], metrics: Iterable[str]) -> str:
  """Returns the sources of the error bars of each metric."""
  seeds = len(_values(rows, 'seed')) > 1
  kinds: dict[str, list[str]] = {}
  for metric in dict.fromkeys(metrics):
    text = any(row.get(f'{metric}_stderr') for row in rows)
    sources = ['seeds'] * seeds + ['sequences of the text'] * text
    name = drawing.LABELS[metric].removesuffix(' (nats)').replace('\n', ' ')
    # Abbreviations keep their capitals.
    name = name if name[:2].isupper() else name[:1].lower() + name[1:]
    kinds.setdefault(' and '.join(sources), []).append(name)
  if set(kinds) <= {''}:
    return 'bars: none'
  words = [
      f'over {sources}' + f' ({", ".join(names)})' * (len(kinds) > 1)
      for sources, names in kinds.items()
      if sources
  ]
  text = f'bars: ± {plot_style.STDERRS} standard errors ' + '; '.join(words)
  if '' in kinds:
    text += f'; no bars: {", ".join(kinds[""])}'
  return text
