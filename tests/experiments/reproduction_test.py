"""docs/reproduction.md: each claim has a verdict, a command and a picture."""

import pathlib
import re

import pytest

from experiments import all as all_lib

_DOCUMENT = (
    pathlib.Path(all_lib.__file__).parents[1] / 'docs' / 'reproduction.md'
)
_TEXT = _DOCUMENT.read_text('utf-8')
_CLAIMS = dict(re.findall(r'^### (.*)\n((?:(?!#).*\n?)*)', _TEXT, re.MULTILINE))
_VERDICT = r'^\* \*\*([^:*]+): ([^*]+)\.\*\* \S'
_COMMAND = r'^    python -m experiments\.figures\.(\w+) --scale=nano$'


def _anchor(title):
  """Returns the anchor of a heading on GitHub."""
  return re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')


@pytest.mark.parametrize('claim', _CLAIMS)
def test_a_claim_has_verdicts_with_numbers_a_command_and_its_picture(claim):
  text = _CLAIMS[claim]
  models = [m for m, _ in re.findall(_VERDICT, text, re.MULTILINE)]
  assert models and len(set(models)) == len(models)
  assert re.search(r'\d', text)
  (figure,) = re.findall(_COMMAND, text, re.MULTILINE)
  assert f'../experiments/results/nano/{figure}.png)' in text


def test_the_table_of_verdicts_agrees_with_the_claims():
  assert len(_CLAIMS) >= 25
  (names,) = re.findall(r'^\| Claim \| (.*) \|$', _TEXT, re.MULTILINE)
  models = names.split(' | ')
  rows = re.findall(r'^\| \[(.*?)\]\(#(.*?)\) \| (.*) \|$', _TEXT, re.M)
  expected = []
  for claim, text in _CLAIMS.items():
    verdicts = dict(re.findall(_VERDICT, text, re.MULTILINE))
    assert 'nano' in verdicts and set(verdicts) <= set(models)
    cells = [verdicts.get(model, '–') for model in models]
    expected.append((claim, _anchor(claim), ' | '.join(cells)))
  assert rows == expected


def test_figures_of_claims_exist_and_all_but_two_are_in_the_document():
  figures = {f.__name__.rpartition('.')[2] for f in all_lib.FIGURES}
  named = set(re.findall(_COMMAND, _TEXT, re.MULTILINE))
  assert named <= figures
  # These show the same members as other figures.
  assert figures - named == {'gated_recovered', 'jumprelu_histograms'}
