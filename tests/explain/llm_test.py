"""Answers are kept in a file; programs are started without a shell."""

import json
import sys

import pytest

from jumprelu import errors
from jumprelu.explain import llm, prompts

_FORM = prompts.Form('numbers', 1, 0, 1)


def requests_of(count):
  return [
      prompts.Request('detection', 'm', i, f'prompt {i}', _FORM)
      for i in range(count)
  ]


class Counting:
  """Answers 1 to each prompt, up to a limit, and records the prompts."""

  name = 'counting'

  def __init__(self, limit=100):
    self.asked, self._limit = [], limit

  def answer(self, requests):
    for request in requests:
      if len(self.asked) == self._limit:
        raise errors.UserError('stopped')
      self.asked.append(request.prompt)
      yield llm.Answer(request.id, '1')


def test_no_prompt_is_sent_twice(tmp_path):
  path, requests = tmp_path / 'answers.jsonl', requests_of(5)
  first, second, third = Counting(limit=2), Counting(), Counting()
  with pytest.raises(errors.UserError, match='stopped'):
    llm.AnswersFile(path).ask(first, requests)
  known = llm.AnswersFile(path).ask(second, [*requests, requests[0]])
  assert first.asked == ['prompt 0', 'prompt 1']
  assert second.asked == ['prompt 2', 'prompt 3', 'prompt 4']
  assert known.keys() == {request.id for request in requests}
  assert llm.AnswersFile(path).ask(third, requests) == known
  assert third.asked == []


def test_a_killed_writer_loses_at_most_its_last_line(tmp_path):
  path, requests = tmp_path / 'answers.jsonl', requests_of(3)
  llm.AnswersFile(path).ask(Counting(), requests)
  text = path.read_text()
  path.write_text(text[:-9])
  model = Counting()
  known = llm.AnswersFile(path).ask(model, requests)
  assert model.asked == ['prompt 2'] and len(known) == 3
  assert path.read_text() == text


def test_a_last_line_without_its_newline_is_an_answer(tmp_path):
  path, requests = tmp_path / 'answers.jsonl', requests_of(2)
  path.write_text(json.dumps({'id': requests[0].id, 'text': '0'}))
  model = Counting()
  known = llm.AnswersFile(path).ask(model, requests)
  assert model.asked == ['prompt 1']
  assert known[requests[0].id].text == '0'
  assert len(llm.read_answers(path)) == 2


@pytest.mark.parametrize(
    'line', ['{', '[]', '{"id": "a"}', '{"id": 1, "text": ""}']
)
def test_a_line_that_is_no_answer_is_named(tmp_path, line):
  path = tmp_path / 'answers.jsonl'
  path.write_text(f'{{"id": "a", "text": "1"}}\n{line}\n')
  with pytest.raises(errors.DataError, match='line 2: not an answer'):
    llm.read_answers(path)


def test_replayed_answers_of_other_prompts_are_ignored(tmp_path):
  requests = requests_of(3)
  file = tmp_path / 'mine.jsonl'
  lines = [
      {'id': requests[1].id, 'text': '1', 'note': 'x'},
      {'id': 'z', 'text': ''},
  ]
  file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  answers = llm.AnswersFile(tmp_path / 'answers.jsonl')
  known = answers.ask(llm.Replay(file, name='me'), requests)
  assert list(known) == [requests[1].id]
  assert json.loads((tmp_path / 'answers.jsonl').read_text())['model'] == 'me'
  with pytest.raises(errors.MissingInputError, match='no such file'):
    list(llm.Replay(tmp_path / 'none', name='me').answer(requests))


_PROGRAM = """
import json, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:]))
for line in sys.stdin:
  request = json.loads(line)
  print(json.dumps({'id': request['id'], 'text': str(request['latent'])}))
print(json.dumps({'id': 'another', 'text': ''}))
sys.exit(int(sys.argv[-1]))
"""


def _program(tmp_path, *arguments):
  script = tmp_path / 'program.py'
  script.write_text(_PROGRAM)
  seen = tmp_path / 'seen.json'
  return [sys.executable, str(script), str(seen), *arguments], seen


def test_a_program_gets_its_arguments_as_they_are(tmp_path):
  hostile = f'; touch {tmp_path}/made; $(touch {tmp_path}/made) `id` *'
  arguments, seen = _program(tmp_path, hostile, '$HOME', '0')
  requests = requests_of(300)
  answers = list(llm.Command(arguments, name='p').answer(requests))
  assert json.loads(seen.read_text()) == [hostile, '$HOME', '0']
  assert not (tmp_path / 'made').exists()
  assert [a.text for a in answers] == [str(i) for i in range(300)]


def test_a_program_that_fails_keeps_its_answers(tmp_path):
  arguments, _ = _program(tmp_path, '3')
  requests, path = requests_of(2), tmp_path / 'answers.jsonl'
  with pytest.raises(errors.UserError, match='exit code 3'):
    llm.AnswersFile(path).ask(llm.Command(arguments, name='p'), requests)
  assert len(llm.read_answers(path)) == 2
  with pytest.raises(errors.UserError, match='cannot be started'):
    list(llm.Command([str(tmp_path / 'none')], name='p').answer(requests))


def test_answers_that_are_not_utf_8_are_named(tmp_path):
  path = tmp_path / 'answers.jsonl'
  path.write_bytes(b'{"id": "1", "text": "\xff"}\n')
  with pytest.raises(errors.DataError, match='answers.jsonl: not UTF-8'):
    llm.read_answers(path)


def test_a_nested_last_line_counts_as_unfinished(tmp_path):
  path = tmp_path / 'answers.jsonl'
  path.write_text('{"id": "1", "text": "a"}\n' + '[' * 10**5)
  assert list(llm.read_answers(path)) == ['1']
