"""Figures of other text and another model: needs, tables and pictures."""

import pytest

from experiments.figures import drawing, scope_text_subsets, scope_transfer
from experiments.suites import command, scales
from jumprelu.evals import evaluate
from jumprelu.plots import sheets

_ALL = (scope_text_subsets, scope_transfer)


def _result(offset):
  rows = [
      {
          'model': 'm', 'site': site, 'variant': 'jumprelu', 'width': 8,
          'sparsity_coefficient': coefficient, 'seed': 0,
          'l0': 5 / coefficient + offset, 'fvu': coefficient / 10 + offset,
          'delta_loss': coefficient + offset, 'delta_loss_stderr': 0.1,
          'path': '/a/folder/of/this/machine',
      }
      for site in ('resid_post', 'transcoder')
      for coefficient in (0.1, 0.2)
  ]  # fmt: skip
  return evaluate.Evaluation(rows, [])


def _results(figure, scale=scales.QUICK):
  names = [need.name for need in figure.needs(scale)]
  return {name: _result(i / 10) for i, name in enumerate(names)}


@pytest.mark.parametrize('scale', scales.SCALES.values(), ids=lambda s: s.name)
def test_figures_share_suites_and_their_names_differ(scale):
  needs = command._all_needs(_ALL, scale)
  names = [need.name for need in needs]
  assert len(set(names)) == len(names)
  assert len(names) == 1 + len(scale.texts) + 4


def test_rows_name_their_text_and_hold_no_path(tmp_path):
  rows = scope_text_subsets.table(_results(scope_text_subsets))
  texts = ('stdlib', *scales.QUICK.texts)
  assert drawing.present(rows, 'text', texts) == list(texts)
  # The figure leaves out transcoders.
  assert len(rows) == 2 * len(texts)
  (headers,) = drawing.where(rows, text='headers', sparsity_coefficient=0.1)
  assert headers['delta_loss'] == pytest.approx(0.3)
  sheets.write_csv(rows, tmp_path / 'x.csv')
  assert 'folder' not in (tmp_path / 'x.csv').read_text()


def test_rows_of_a_transfer_name_their_saes():
  rows = scope_transfer.table(_results(scope_transfer))
  kinds = ('chat', 'base', 'base_rescaled', 'at_home')
  assert drawing.present(rows, 'saes', kinds) == list(kinds)
  (row,) = drawing.where(
      rows, saes='base_rescaled', site='resid_post', sparsity_coefficient=0.2
  )
  assert row['fvu'] == pytest.approx(0.22)


@pytest.mark.parametrize('figure', _ALL, ids=lambda f: f.__name__)
def test_pictures_have_a_curve_for_each_kind(figure):
  rows = figure.table(_results(figure))
  axis = figure.figure(rows).axes[0]
  labels = axis.get_legend_handles_labels()[1]
  assert len(labels) == len(figure.needs(scales.QUICK))
  assert len(set(labels)) == len(labels)
