"""`jumprelu curves`: pictures and the numbers of metrics.jsonl."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from jumprelu.run import main

FIXTURE = pathlib.Path(__file__).parents[1] / 'fixtures' / 'format_1'
RUN = str(FIXTURE / 'run')
NAMES = ('loss', 'l0', 'fvu', 'dead_share', 'learning_rate')


def rows_of(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_an_older_run_is_drawn_and_its_numbers_are_written(tmp_path, capsys):
  out = tmp_path / 'out'
  assert main.main(['curves', RUN, f'--out={out}']) == 0
  files = {f'{n}.{suffix}' for n in NAMES for suffix in ('png', 'pdf')}
  assert {p.name for p in out.iterdir()} == files | {'curves.csv'}
  printed = capsys.readouterr().out
  assert all(f'{out}/{name}.png' in printed for name in NAMES)
  rows = rows_of(out / 'curves.csv')
  text = (FIXTURE / 'run' / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert len(rows) == 6 * len(lines)
  for row in rows:
    (line,) = [x for x in lines if x['step'] == int(row['step'])]
    group = line['groups'][f'{row["site"]}-{row["width"]}-{row["variant"]}']
    for name, (value,) in group.items():
      assert float(row[name]) == value


def test_several_runs_are_drawn_together_over_steps(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
    for file in ('config.json', 'suite.json', 'metrics.jsonl', 'starts.json'):
      shutil.copy(FIXTURE / 'run' / file, tmp_path / name / file)
    (tmp_path / name / 'STATUS.json').write_text('{}')
  runs = [str(tmp_path / name) for name in 'ab']
  out = tmp_path / 'out'
  assert main.main(['curves', *runs, '--over=steps', f'--out={out}']) == 0
  rows = rows_of(out / 'curves.csv')
  assert [row['run'] for row in rows] == ['a'] * 78 + ['b'] * 78


@pytest.mark.parametrize(
    'arguments, code, message',
    [
        ([], 2, 'nothing to draw: use jumprelu curves RUN... --out=DIR'),
        ([RUN], 2, '--out is needed'),
        ([RUN, RUN, '--out=x'], 2, 'passed twice'),
        ([RUN, '--out=gs://bucket/x'], 2, 'must be a local path'),
        ([RUN, f'--out={RUN}/config.json'], 2, 'not a directory'),
        ([RUN, f'--out={FIXTURE}/release/x'], 2, 'is a release'),
        ([RUN, '--over=days', '--out=x'], 2, 'over'),
        (['nowhere', '--out=x'], 66, 'nowhere: no run directory'),
        ([f'{FIXTURE}/release', '--out=x'], 2, 'a release, not a run'),
    ],
)
def test_bad_input_is_a_line_that_names_it(
    tmp_path, monkeypatch, capsys, arguments, code, message
):
  monkeypatch.chdir(tmp_path)
  assert main.main(['curves', *arguments]) == code
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('jumprelu curves: ') and message in line
  assert not any(tmp_path.iterdir())


def test_no_device_is_used(tmp_path):
  """Runs on a platform that does not exist, which any use would reach."""
  code = (
      'import sys; from jumprelu.run import main;'
      f' sys.exit(main.main(["curves", "{RUN}", "--out={tmp_path}/out"]))'
  )
  env = os.environ | {'JAX_PLATFORMS': 'absent'}
  subprocess.run([sys.executable, '-c', code], env=env, check=True)
  assert (tmp_path / 'out' / 'loss.png').exists()
