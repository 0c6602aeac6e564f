"""Delta loss by the kind of text: SAEs evaluated on text unlike their own.

Gemma Scope (arXiv 2408.05147), figure 9. In the paper delta loss on subsets of
the Pile is lowest on mathematics and highest on a multilingual corpus. The
figure shows JumpReLU SAEs of three sites, trained on Python's standard library
and evaluated on its held-out modules and on other text that is part of every
installation (`texts.py`): other authors' code, docstrings, type stubs, package
descriptions and C headers. Neither the SAEs nor the language model were trained
on any of these texts.

  python -m experiments.figures.scope_text_subsets --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.nano import texts
from experiments.suites import command, scales, suites

_TRAINING_TEXT = 'stdlib'
_LABELS = {
    'stdlib': 'Standard library, held out',
    'jax': 'Code of jax',
    'docstrings': 'Docstrings of numpy',
    'stubs': 'Type stubs of numpy',
    'descriptions': 'Package descriptions',
    'headers': 'C headers of numpy',
}
_COLUMNS = (
    'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu', 'delta_loss',
    'delta_loss_stderr', 'loss_clean', 'loss_recovered', 'tokens_evaluated',
    'tokens_delta_loss',
)  # fmt: skip


def needs(scale):
  """Returns the middle layer's suite and its readings on the other texts."""
  suite = suites.layer(scale, scale.layer)
  return (suite, *(reading(scale, suite, name) for name in scale.texts))


def reading(scale, suite, name):
  """Returns a reading of the suite on another text, most of it held out."""
  changes = {
      'data': texts.needed(name, scale.text_characters),
      'corpus.held_out_percent': 80,
      'corpus.max_tokens': 0,
  }
  return suites.Reading(f'text_{name}', suite, changes)


def table(results):
  """Returns one row per text and member."""
  rows = []
  for name, result in results.items():
    is_other = name.startswith('text_')
    text = name.removeprefix('text_') if is_other else _TRAINING_TEXT
    members = drawing.where(result.rows, variant='jumprelu')
    selected = drawing.select(members, *_COLUMNS)
    rows += [{'text': text, **row} for row in selected]
  return [row for row in rows if row['site'] in scales.SITES]


def figure(rows):
  """Returns delta loss and FVU: one column per site, one curve per text."""

  def draw(axis, site_rows, metric):
    panels.curves(axis, site_rows, metric, column='text', labels=_LABELS)

  return panels.by_site(rows, ('delta_loss', 'fvu'), draw)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
