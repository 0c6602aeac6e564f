"""A scale may have a part of the figures, and fewer members of slow suites."""

import importlib
import pathlib

import pytest

from experiments import all as all_lib
from experiments.figures import drawing, gated_ito, jumprelu_pre_acts
from experiments.nano import made
from experiments.suites import command, results, scales, suites, training_text
from jumprelu import errors
from jumprelu.release import publish
from tests.experiments import figure_cases
from tests.experiments import small_results as small

_STORED = pathlib.Path(all_lib.__file__).parent / 'results'
_LONG, _HALF = scales.NANO_LONG, scales.NANO_LONG_HALF


def test_a_scale_with_a_list_of_figures_has_only_these():
  kept = command._of_scale(all_lib.FIGURES, _LONG)
  assert {figure_cases.name(figure) for figure in kept} == set(_LONG.figures)
  assert command._of_scale(all_lib.FIGURES, scales.NANO) == [*all_lib.FIGURES]
  others = [f for f in all_lib.FIGURES if f not in kept]
  with pytest.raises(errors.UserError, match='only the figures jumprelu_fid'):
    command._of_scale(others[:1], _LONG)


def _configs(scale):
  """Returns the config of each suite of the scale, by name."""
  figures = command._of_scale(all_lib.FIGURES, scale)
  suites_ = [
      getattr(need, 'suite', need)
      for need in command._all_needs(figures, scale)
  ]
  return {suite.name: made.resolve(suite.config) for suite in suites_}


def test_the_half_scale_differs_only_in_its_tokens():
  full, half = _configs(_LONG), _configs(_HALF)
  assert set(full) == set(half)
  for name, config in full.items():
    assert half[name].tokens * 2 == config.tokens
    assert half[name].optim == config.optim
    assert half[name].variants == config.variants
    assert half[name].data == config.data


def test_the_long_scale_has_8_times_the_tokens_and_widths_3_million_or_more():
  long, nano = _configs(_LONG), _configs(scales.NANO)
  for name in ('headline', 'ladder', 'to_pre_acts'):
    assert long[name].tokens >= 8 * nano[name].tokens
  assert long['ladder'].tokens >= 3_000_000
  assert long['ladder'].data == 'python'
  assert long['ladder'].widths == nano['ladder'].widths


def test_slow_variants_have_a_suite_of_their_own():
  assert _configs(_LONG)['headline'].variants == ('topk', 'jumprelu')
  assert _configs(_LONG)['baselines'].variants == ('relu', 'gated')
  results_ = {need.name: small.make(need) for need in gated_ito.needs(_LONG)}
  rows = gated_ito.table(results_)
  assert {row['variant'] for row in rows} == set(suites.VARIANTS)


def test_jumprelu_saes_of_the_headline_are_the_first_option():
  results_ = {
      need.name: small.make(need) for need in jumprelu_pre_acts.needs(_LONG)
  }
  rows = jumprelu_pre_acts.table(results_)
  assert [(row['option'], row['sparsity_coefficient']) for row in rows] == [
      *(('plain_jumprelu', c) for c in _LONG.sparsities['jumprelu']),
      ('to_pre_acts', 1e-3),
  ]
  assert {row['variant'] for row in rows} == {'jumprelu'}


def test_members_of_the_long_scale_are_measured_on_training_text(monkeypatch):
  calls = []
  monkeypatch.setattr(publish, 'open_run', lambda path: 'run')
  monkeypatch.setattr(
      publish,
      'evaluate_members',
      lambda run, names: calls.append(list(names)) or 'held out',
  )
  monkeypatch.setattr(training_text, 'add', lambda result, run: (result, run))
  for scale, expected in (
      (_LONG, ('held out', 'run')),
      (scales.NANO, 'held out'),
  ):
    suite = suites.headline(scale)
    assert results._measure(suite, pathlib.Path('work')) == expected
  assert calls == [['histogram'], ['histogram']]


def _stored_tables():
  return sorted(_STORED.glob('nano_long*/*.csv'))


def test_tables_of_the_half_scale_are_stored():
  assert _STORED / _HALF.name / 'jumprelu_fidelity.csv' in _stored_tables()


@pytest.mark.parametrize(
    'path', _stored_tables(), ids=lambda p: f'{p.parent.name}-{p.stem}'
)
def test_a_stored_table_has_the_tokens_of_its_scale(path):
  figure = importlib.import_module(f'experiments.figures.{path.stem}')
  rows = drawing.read_csv(path)
  need = figure.needs(scales.SCALES[path.parent.name])[0]
  config = made.resolve(getattr(need, 'suite', need).config)
  assert {row['training_tokens'] for row in rows} == {config.tokens}
  words = ' '.join(figure.figure(rows).get_suptitle().split())
  assert f'trained on {config.tokens:,} tokens of {config.data}' in words
  # Tables of pairs and of pursuit have no columns of training text.
  assert ('epochs of' in words) == ('epochs' in rows[0])
