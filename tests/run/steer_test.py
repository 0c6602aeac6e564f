"""`jumprelu steer`: a table, a page, rows, and errors in one line."""

import json
import re

import pytest

from jumprelu.explore import steering_page
from jumprelu.run import main
from tests.api import conftest as api

release = api.release
MEMBER = ['--members=resid_post/', '--l0=5']


def _steer(release, *flags):
  return main.main(['steer', str(release), *MEMBER, '--latent=3', *flags])


def test_strengths_become_a_table_and_rows(release, tmp_path, capsys):
  out, scorer = tmp_path / 'rows.jsonl', tmp_path / 'mine.py'
  scorer.write_text('def length(prompt, text):\n  return len(text)\n')
  code = _steer(
      release,
      '--prompt=def ',
      '--strengths=1,30',
      '--unit=1.5',
      '--tokens=6',
      '--keyword=0',
      f'--scorer={scorer}:length',
      f'--out={out}',
  )
  output = capsys.readouterr()
  assert not code, output.err
  head, *lines = output.out.splitlines()
  columns = ['latent', 'strength', 'kl', 'loss', 'keyword', 'score']
  assert head.split() == [*columns, 'continuation']
  assert [line.split()[1] for line in lines[:3]] == ['-', '1', '30']
  assert lines[3] == f'{out}: 3 continuations'
  rows = [json.loads(line) for line in out.read_text('utf-8').splitlines()]
  plain, _, strong = rows
  assert plain['strength'] is None and abs(plain['kl']) < 1e-4 < strong['kl']
  assert all(row['score'] == len(row['continuation']) for row in rows)
  assert {row['unit'] for row in rows} == {1.5}


def test_the_page_escapes_texts():
  row = {'latent': 3, 'strength': None, 'prompt': '<b>', 'kl': 0.0, 'loss': 1.5}
  rows = [row | {'continuation': '<script>'}, row | {'continuation': 'b'}]
  rows[1]['strength'] = 2.0
  page = steering_page.page(rows, title='Steering a<b')
  assert '<script>' not in page and '&lt;script&gt;' in page
  assert page.count('class="row"') == 1
  assert 'plain model' in page and 'strength 2' in page and 'loss 1.5' in page


@pytest.mark.parametrize(
    'flags, message',
    [
        ([], 'pass one of --prompt=TEXT and --prompts=FILE'),
        (['--prompt=a', '--strengths=x'], '--strengths=x: .* with commas'),
        (['--prompt=a', '--out=a.txt'], '--out=a.txt: must end in .html or'),
        (['--prompt=a', '--scorer=a.py:f'], '--scorer=a.py:f: no such file'),
        (['--prompts=/no/file'], '--prompts=/no/file: .*No such file'),
        (['--prompt=a', '--members=nothing'], 'nothing: selects no SAEs'),
        (['--prompt=a'], '--features=.*: no folder of features; collect'),
        (['--prompt=a', '--unit=1', '--latent=999'], 'latent=999: .* 0 to 63'),
    ],
)
def test_errors_have_one_line(release, capsys, flags, message):
  assert _steer(release, *flags) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and re.search(message, error), error
