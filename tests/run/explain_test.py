"""The command `jumprelu explain`: its flags, its output and its key."""

import json
import logging

import pytest

from jumprelu.explain import remote_llm
from jumprelu.run import main
from tests.explain import conftest as explain_conftest
from tests.explain import planted, remote_llm_test

_planted, folder = explain_conftest._planted, explain_conftest.folder
server = remote_llm_test.server


def _run(folder, *argv):
  return main.launch('explain', [f'--features={folder}', *argv])


def test_rules_are_written_by_one_command(folder, capsys):
  assert _run(folder) == 0
  out = capsys.readouterr().out
  assert 'rules: 8 latents' in out and 'by a single token' in out
  assert (folder / 'explanations' / 'rules' / 'manifest.json').exists()
  assert _run(folder) == 0
  assert capsys.readouterr().out == out


def test_prompts_without_an_answer_are_announced(folder, capsys):
  assert _run(folder, '--llm=file', '--explain.latents=2') == 0
  out = capsys.readouterr().out
  assert 'prompts.jsonl: 2 prompts without an answer' in out
  assert '--llm_answers=FILE' in out


@pytest.mark.parametrize(
    'argv, words',
    [
        (['--llm=url'], ['needs --llm_url', 'needs --llm_model']),
        (['--llm=command'], ['needs --llm_command']),
        (['--llm=local'], ['needs --llm_model']),
        (['--llm_url=http://localhost/v1'], ['--llm_url needs --llm=url']),
        (['--judge=llm'], ['need --llm']),
        (['--llm=file', '--judge=rules'], ['judges --explainer=rules only']),
        (
            ['--llm=file', '--judge=rules', '--explainer=rules'],
            ['used by neither'],
        ),
        (['--members=zzz'], ['no path contains', planted.MEMBER]),
        (['--explain.kinds=detection,x'], ['explain.kinds']),
        (['--llm=local', '--llm_model=x'], ['--explain.per_prompt=1']),
        (['--llm=command', "--llm_command=a 'b"], ['--llm_command']),
    ],
)
def test_wrong_flags_end_in_one_line(folder, capsys, argv, words):
  assert _run(folder, *argv) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert all(word in error for word in words), error


def test_a_server_is_asked_and_the_key_is_written_nowhere(
    folder, server, capsys, caplog, monkeypatch
):
  key = 'key-of-the-environment'
  monkeypatch.setenv(remote_llm.KEY_VARIABLE, key)
  argv = (
      '--llm=url',
      f'--llm_url=http://127.0.0.1:{server.server_port}/v1',
      '--llm_model=org/name',
      '--explain.latents=2',
      '--explain.per_prompt=1',
      '--debug',
  )
  with caplog.at_level(logging.DEBUG):
    assert _run(folder, *argv) == 0
  assert server.seen[0][1]['Authorization'] == f'Bearer {key}'
  assert (folder / 'explanations' / 'org_name').is_dir()
  files = [p.read_bytes() for p in folder.rglob('*') if p.is_file()]
  assert len(files) > 5 and not any(key.encode() in data for data in files)
  captured = capsys.readouterr()
  assert key not in captured.out + captured.err + caplog.text
  manifest = folder / 'explanations' / 'org_name' / 'manifest.json'
  assert json.loads(manifest.read_text())['model'] == 'org/name'
