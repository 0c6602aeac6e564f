"""`jumprelu plan`: flags, layers and exit codes."""

import json

import pytest

from jumprelu.planning import tpu_compile
from jumprelu.run import main

_ARGS = ('--recipe=paper', '--model=gemma2_2b', '--topology=v5e:4x4')


def test_it_prints_a_table_and_writes_json(capsys, tmp_path):
  out = tmp_path / 'plan.json'
  code = main.main([
      'plan', *_ARGS, '--layers=0,12', '--price_per_chip_hour=1.5',
      f'--out={out}',
  ])  # fmt: skip
  assert code == 0
  text = capsys.readouterr().out
  assert 'by formula' in text and 'cost' in text and '2 jobs\n' in text
  plan = json.loads(out.read_text('utf-8'))
  assert [job['layers'] for job in plan['jobs']] == [[0], [12]]
  assert plan['cost'] == pytest.approx(1.5 * plan['chip_hours'])


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--layers=0,26', 'layers 0 to 25'),
        ('--layers=top', 'must be numbers'),
        ('--topology=v9:2x2', "chip 'v9' is unknown"),
        ('--price_per_chip_hour=nan', 'finite'),
        ('--widths=0', 'at least 1'),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(capsys, flag, words):
  assert main.main(['plan', *_ARGS, flag]) == 2
  error = capsys.readouterr().err
  assert words in error and error.count('\n') == 1


def test_compile_without_the_compiler_names_the_package(capsys, monkeypatch):
  monkeypatch.setattr(tpu_compile, 'available', lambda: False)
  assert main.main(['plan', *_ARGS, '--compile']) == 66
  assert 'pip install libtpu' in capsys.readouterr().err
