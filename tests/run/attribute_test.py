"""`jumprelu attribute`: tables of nodes, circuits, and errors in one line."""

import json
import re

import pytest

from jumprelu.run import main
from tests.api import conftest as api

release = api.release
PROMPT = '--prompt=with open(path) as f:'


def _attribute(release, *flags):
  members = '--members=average_l0_5,transcoder'
  return main.main(['attribute', str(release), members, *flags])


def test_nodes_and_circuits_become_tables(release, tmp_path, capsys):
  out = tmp_path / 'nodes.jsonl'
  code = _attribute(
      release,
      PROMPT,
      '--answer=import',
      '--foil=def',
      '--k=4',
      '--curve=2,5',
      f'--out={out}',
  )
  output = capsys.readouterr()
  assert not code, output.err
  lines = output.out.splitlines()
  assert lines[0].startswith("'import' against 'def': ")
  heads = [line.split()[0] for line in lines]
  assert {'member', 'effect', 'nodes', '2', '5'} <= set(heads)
  nodes = [json.loads(line) for line in out.read_text('utf-8').splitlines()]
  sizes = [abs(node['effect']) for node in nodes]
  assert len(nodes) == 4 and sizes == sorted(sizes, reverse=True)
  for node in nodes:
    assert (node['latent'] is None) == (node['activation'] is None)


@pytest.mark.parametrize(
    'flags, message',
    [
        ([PROMPT], '--answer is needed'),
        ([PROMPT, '--answer=a', '--curve=0'], '--curve=0: write whole numbers'),
        ([PROMPT, '--answer=a', '--out=a.html'], 'must end in .jsonl'),
        (['--answer=a'], 'pass one of --prompt=TEXT and --prompts=FILE'),
    ],
)
def test_errors_have_one_line(release, capsys, flags, message):
  assert _attribute(release, *flags) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and re.search(message, error), error
