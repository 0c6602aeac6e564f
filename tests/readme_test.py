"""README.md explains its words, its table and the demo's files."""

import pathlib
import re

import pytest

from jumprelu.evals import results
from jumprelu.run import demo

_TEXT = (pathlib.Path(__file__).parents[1] / 'README.md').read_text('utf-8')


def files_of_the_demo() -> list[str]:
  """Returns the names in README's list of the demo's folder."""
  (block,) = re.findall(
      r'The folder `jumprelu_demo` then holds\n\n((?:    .*\n)+)', _TEXT
  )
  return [line.split()[0].rstrip('/') for line in block.splitlines()]


def _demo_table() -> list[str]:
  """Returns the lines of the table that the demo prints."""
  (block,) = re.findall(r'```\n(layer 2, .*?)```', _TEXT, re.DOTALL)
  return block.splitlines()


def test_the_table_of_the_demo_is_as_the_program_prints_it():
  shared, header, *lines = _demo_table()
  assert shared == 'layer 2, width 512, variant jumprelu'
  headings = re.split(r'\s{2,}', header)
  for line in lines:
    cells = re.split(r'\s{2,}', line)
    row = {
        results.COLUMNS[heading]: None
        if cell == '-'
        else cell
        if heading == 'site'
        else float(cell)
        for heading, cell in zip(headings, cells, strict=True)
    }
    printed = results.table([row]).splitlines()[-1].split()
    assert printed == [cell for cell in cells if cell != '-']


def test_every_column_of_that_table_is_explained():
  headings = re.split(r'\s{2,}', _demo_table()[1])
  (block,) = re.findall(r'\| column \|.*?\n\n', _TEXT, re.DOTALL)
  explained = [
      name.strip()
      for names in re.findall(r'^\| ([^|]+) \|', block, re.MULTILINE)
      for name in names.split(',')
  ]
  assert set(headings) <= set(explained)


def test_the_demo_names_the_files_that_the_readme_lists(
    tmp_path, monkeypatch, capsys
):
  row = {'site': 'resid_post', 'layer': 2, 'width': 8, 'variant': 'jumprelu'}
  row |= {'model': 'gemma2_nano', 'l0': 3.0, 'fvu': 0.5}
  demo._show(tmp_path, [row], 1.0)
  printed = capsys.readouterr().out
  for name in files_of_the_demo():
    assert f'{tmp_path}/{name}\n' in printed.replace(' ', '\n'), name


@pytest.mark.parametrize(
    'word', ['latent', 'suite', 'members', 'site', 'gamma', 'dense']
)
def test_a_word_is_defined_before_the_reader_needs_it(word):
  definitions = _TEXT[: _TEXT.index('## Map')]
  assert re.search(rf'\*{word}\*|^\| (?:.*, )?{word}\b', definitions, re.M)


def test_the_limits_are_named():
  limits = _TEXT.partition('## Limits\n')[2].partition('\n## ')[0]
  assert limits.count('\n* ') >= 4
