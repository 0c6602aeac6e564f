"""`jumprelu compare`: one frontier, one CSV and one table of several results."""

import csv
import json
import pathlib

import pytest

from jumprelu.run import main

FIXTURE = pathlib.Path(__file__).parents[1] / 'fixtures' / 'format_1'
RELEASE, EVALUATION = f'{FIXTURE}/release', f'{FIXTURE}/evaluation.jsonl'


def test_several_results_become_a_plot_a_csv_and_a_table(tmp_path, capsys):
  out = tmp_path / 'out'
  assert main.main(['compare', RELEASE, EVALUATION, f'--out={out}']) == 0
  names = [f'frontier.{suffix}' for suffix in ('csv', 'pdf', 'png')]
  assert sorted(p.name for p in out.iterdir()) == names
  with (out / 'frontier.csv').open(newline='') as file:
    written = list(csv.DictReader(file))
  wanted = []
  for name, path in (
      ('release', FIXTURE / 'release' / 'results.jsonl'),
      ('evaluation.jsonl', FIXTURE / 'evaluation.jsonl'),
  ):
    for line in path.read_text().splitlines():
      wanted.append({'run': name, **json.loads(line)})
  assert len(written) == len(wanted) == 12
  for ours, theirs in zip(written, wanted, strict=True):
    for column, value in theirs.items():
      if value is None:
        assert ours[column] == ''
      else:
        assert type(value)(ours[column]) == value
  shared, head, *lines = capsys.readouterr().out.splitlines()
  assert shared == 'layer 1, width 16'
  assert head.split()[:3] == ['run', 'site', 'variant']
  assert [line.split()[0] for line in lines[:12]] == ['release'] * 6 + [
      'evaluation.jsonl'
  ] * 6
  assert lines[-1].startswith(f'{out}/frontier.png: 12 SAEs')


def test_a_single_release_needs_no_name(tmp_path, capsys):
  assert main.main(['compare', RELEASE, f'--out={tmp_path}/out']) == 0
  head = capsys.readouterr().out.splitlines()[1]
  assert head.split()[:2] == ['site', 'variant']


def test_results_of_different_texts_are_marked(tmp_path, capsys):
  rows = [
      json.loads(x)
      for x in pathlib.Path(EVALUATION).read_text().split('\n')[:1]
  ]
  sources = []
  for name, loss in (('same', 0), ('other', 0.01)):
    path = tmp_path / f'{name}.jsonl'
    path.write_text(
        json.dumps(rows[0] | {'loss_clean': rows[0]['loss_clean'] + loss})
    )
    sources.append(str(path))
  out = f'--out={tmp_path}/out'
  assert main.main(['compare', EVALUATION, sources[0], out]) == 0
  assert 'different texts' not in capsys.readouterr().out
  assert main.main(['compare', EVALUATION, sources[1], out]) == 0
  assert 'measured on different texts' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, code, message',
    [
        ([], 2, 'use jumprelu compare RELEASE_OR_RESULTS... --out=DIR'),
        ([RELEASE], 2, '--out is needed'),
        ([RELEASE, RELEASE, '--out=x'], 2, 'passed twice'),
        (['gs://bucket/release', '--out=x'], 2, 'must be a local path'),
        ([EVALUATION, f'--out={RELEASE}/x'], 2, 'is a release'),
        ([f'{FIXTURE}/run', '--out=x'], 2, 'a run, not a release'),
        ([f'{FIXTURE}/text.jsonl', '--out=x'], 65, 'line 1: model is missing'),
        (['x.jsonl', '--out=x'], 66, 'x.jsonl: no such file'),
    ],
)
def test_bad_input_is_a_line_that_names_it(
    tmp_path, monkeypatch, capsys, arguments, code, message
):
  monkeypatch.chdir(tmp_path)
  assert main.main(['compare', *arguments]) == code
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('jumprelu compare: ') and message in line
  assert not any(tmp_path.iterdir())


def test_results_without_an_l0_are_an_error(tmp_path, capsys):
  row = json.loads((FIXTURE / 'evaluation.jsonl').read_text().splitlines()[0])
  path = tmp_path / 'x.jsonl'
  path.write_text(json.dumps(row | {'l0': None}) + '\n')
  assert main.main(['compare', str(path), f'--out={tmp_path}/out']) == 65
  assert 'no row has a positive L0' in capsys.readouterr().err
