"""The recipe that adapts to the length of a run."""

import dataclasses
import json
import pathlib

import pytest

from jumprelu import errors
from jumprelu.files import dotted
from jumprelu.training import config, recipes, run_dir, start_lines, train
from tests import toy_run

_PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'training_advice.md'


def _scaled(**overrides):
  named = {name.replace('__', '.'): value for name, value in overrides.items()}
  return config.resolve({'recipe': 'scaled', **named})


def _documented():
  """Returns {tokens: values by path} of the table in the documentation."""
  text = _PAGE.read_text('utf-8')
  table = text.split('<!-- scaled -->\n')[1].split('<!-- end -->')[0]
  header, _, *lines = [
      [cell.strip(' `') for cell in line.strip('|').split('|')]
      for line in table.strip().splitlines()
  ]
  return {
      int(line[0].replace(',', '')): dict(
          zip(header[2:], map(float, line[2:]), strict=True)
      )
      for line in lines
  }


def test_the_values_at_each_number_of_tokens_are_those_documented():
  documented = _documented()
  assert len(documented) >= 4
  for tokens, values in documented.items():
    leaves = dotted.leaves(_scaled(tokens=tokens))
    assert {path: leaves[path].value for path in values} == values, tokens


def test_up_to_2048_steps_the_recipe_is_short():
  short = config.resolve({'tokens': 524_288})
  scaled = _scaled(tokens=524_288)
  assert dataclasses.replace(scaled, recipe='short') == short
  assert _scaled(tokens=1_048_576).optim != short.optim


def test_the_values_depend_on_the_number_of_steps_not_on_tokens():
  assert (
      _scaled(tokens=4_194_304).optim
      == _scaled(tokens=16_777_216, stream__batch=1024).optim
  )


def test_four_times_the_steps_halve_the_learning_rate():
  rates = [
      _scaled(tokens=256 * 2048 * 4**n).optim.learning_rate for n in range(5)
  ]
  assert rates == pytest.approx([1e-2 / 2**n for n in range(5)], rel=1e-3)


def test_an_explicit_value_wins_and_leaves_the_others():
  plain = _scaled(tokens=4_194_304).optim
  changed = _scaled(tokens=4_194_304, optim__learning_rate=2e-2).optim
  assert changed == dataclasses.replace(plain, learning_rate=2e-2)


def test_other_recipes_do_not_depend_on_the_number_of_steps():
  for recipe in set(recipes.RECIPES) - {'scaled'}:
    assert recipes.by_steps(recipe, 100_000) == {}, recipe


def test_an_invalid_number_of_tokens_is_still_reported():
  for tokens in ('many', None, 2.5):
    with pytest.raises(errors.UserError, match='tokens'):
      _scaled(tokens=tokens)


def test_the_line_of_a_run_names_the_values_at_its_length():
  assert start_lines.recipe_line(_scaled(tokens=4_194_304)) == (
      'recipe scaled at 16,384 steps: optim.learning_rate=0.003536'
  )
  changed = _scaled(tokens=4_194_304, optim__learning_rate=2e-2)
  assert start_lines.recipe_line(changed).endswith('optim.learning_rate=0.02')


def test_other_recipes_have_no_line():
  assert start_lines.recipe_line(config.resolve()) == ''


def test_a_run_prints_the_line_once_and_stores_the_numbers(tmp_path):
  phases = []
  watch = train.QUIET._replace(on_phase=phases.append)
  toy_run.run(tmp_path, stop=(3,), watch=watch, recipe='scaled')
  line = 'recipe scaled at 13 steps: optim.learning_rate=0.003'
  assert phases.count(line) == 1
  stored = json.loads((tmp_path / 'config.json').read_text())
  assert stored['recipe'] == 'scaled'
  assert stored['optim']['learning_rate'] == 3e-3


def test_a_stored_config_keeps_its_numbers_if_the_recipe_changes(
    tmp_path, monkeypatch
):
  resolved = _scaled(tokens=4_194_304)
  directory = run_dir.RunDir(tmp_path)
  with directory.claim(resolved):
    pass
  monkeypatch.setattr(
      recipes, 'by_steps', lambda recipe, steps: {'optim.learning_rate': 1.0}
  )
  assert directory.read_config() == resolved
  assert _scaled(tokens=4_194_304).optim.learning_rate == 1.0
