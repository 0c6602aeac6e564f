"""Delta loss by the kind of text: SAEs are read on text unlike their own.

Gemma Scope (arXiv 2408.05147), figure 9: delta loss on subsets of the Pile; it
was lowest on mathematics and highest on a corpus of many languages. Shown:
JumpReLU SAEs of three sites, trained on Python's standard library, on its
held-out modules and on other text that comes with every installation
(`texts.py`): code of other authors, docstrings, type stubs, descriptions of
packages, and C. None of it was trained on, by SAEs or language model.

  python -m experiments.figures.scope_text_subsets --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.nano import texts
from experiments.suites import command, scales, suites

_OWN = 'stdlib'
_LABELS = {
    'stdlib': 'standard library, held out',
    'jax': 'code of jax',
    'docstrings': 'docstrings of numpy',
    'stubs': 'type stubs of numpy',
    'descriptions': 'package descriptions',
    'headers': 'C headers of numpy',
}
_COLUMNS = (
    'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu', 'delta_loss',
    'delta_loss_stderr', 'loss_clean', 'loss_recovered', 'tokens_evaluated',
    'tokens_delta_loss',
)  # fmt: skip


def needs(scale):
  """The layer's suite, and it once more on each other text."""
  suite = suites.layer(scale, scale.layer)
  return (suite, *(reading(scale, suite, name) for name in scale.texts))


def reading(scale, suite, name):
  """The suite on another text; most of that is read."""
  changes = {
      'data': texts.needed(name, scale.text_characters),
      'corpus.held_out_percent': 80,
      'corpus.max_tokens': 0,
  }
  return suites.Reading(f'text_{name}', suite, changes)


def table(results):
  """A row a text and member."""
  rows = []
  for name, result in results.items():
    text = name.removeprefix('text_') if name.startswith('text_') else _OWN
    found = drawing.where(result.rows, variant='jumprelu')
    rows += [{'text': text, **row} for row in drawing.select(found, *_COLUMNS)]
  return [row for row in rows if row['site'] in scales.SITES]


def figure(rows):
  """Delta loss and FVU against L0, a column a site, a curve a text."""

  def draw(axis, found, metric):
    panels.curves(axis, found, metric, column='text', labels=_LABELS)

  return panels.by_site(rows, ('delta_loss', 'fvu'), draw)


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
