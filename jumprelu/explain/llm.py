"""Language models that answer prompts, and the file of their answers.

Each answer is appended to a file as soon as it is known, with the digest of its
prompt. Prompts whose answers are in the file are not sent again, so a stopped
command resumes at the first prompt without an answer. The file can also be
written by any other program.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import json
import os
import pathlib
import subprocess
import tempfile
from typing import NamedTuple, Protocol, runtime_checkable

from jumprelu import errors
from jumprelu.explain import prompts
from jumprelu.files import json_files


class Answer(NamedTuple):
  """An answer.

  Attributes:
    id: The id of the request.
    text: The text of the answer.
    error: Why there is no text; '' if there is.
  """

  id: str
  text: str
  error: str = ''


@runtime_checkable
class LanguageModel(Protocol):
  """The interface of a language model."""

  @property
  def name(self) -> str:
    """The name that is recorded with its answers."""
    ...

  def answer(self, requests: Sequence[prompts.Request]) -> Iterator[Answer]:
    """Yields answers in any order; requests without an answer stay open."""
    ...


class Replay:
  """Answers from a file, which another program has written."""

  def __init__(self, path: str | os.PathLike[str] | None, *, name: str):
    self._path = path
    self.name = name

  def answer(self, requests: Sequence[prompts.Request]) -> Iterator[Answer]:
    """Yields the answers that the file has."""
    if self._path is not None:
      if not pathlib.Path(self._path).is_file():
        raise errors.MissingInputError(f'{self._path}: no such file of answers')
      known = read_answers(self._path)
      yield from (known[r.id] for r in requests if r.id in known)


class Command:
  """A program that reads prompts as lines of JSON and writes answers so.

  It is started from a list of arguments and never through a shell.
  """

  def __init__(self, arguments: Sequence[str], *, name: str):
    self._arguments = list(arguments)
    self.name = name

  def answer(self, requests: Sequence[prompts.Request]) -> Iterator[Answer]:
    """Yields the answers that the program writes.

    Raises:
      UserError: The program cannot be started, or fails.
    """
    wanted = {request.id for request in requests}
    if not wanted:
      return
    with tempfile.TemporaryFile('w+', encoding='utf-8') as file:
      for request in requests:
        file.write(json.dumps(request.to_json()) + '\n')
      file.seek(0)
      try:
        process = subprocess.Popen(
            self._arguments, stdin=file, stdout=subprocess.PIPE, text=True
        )
      except OSError as error:
        raise errors.UserError(
            f'{self._arguments[0]}: cannot be started ({error.strerror}); check'
            ' --llm_command'
        ) from error
      with process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, 1):
          where = f'{self._arguments[0]}: line {number} of its output'
          if line.strip() and (answer := parse(line, where)).id in wanted:
            yield answer
    if process.returncode:
      raise errors.UserError(
          f'{self._arguments[0]}: ended with exit code {process.returncode};'
          ' repeat the command to resume'
      )


class AnswersFile:
  """The file of answers of a set of explanations."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._known = read_answers(path) if path.is_file() else {}

  def ask(
      self, model: LanguageModel, requests: Iterable[prompts.Request]
  ) -> Mapping[str, Answer]:
    """Returns the answers by id; the model only answers missing ones."""
    distinct = {request.id: request for request in requests}
    pending = [r for key, r in distinct.items() if key not in self._known]
    if pending:
      _drop_unfinished_line(self._path)
    for answer in model.answer(pending) if pending else ():
      line = {'id': answer.id, 'text': answer.text, 'model': model.name}
      if answer.error:
        line['error'] = answer.error
      json_files.append_line(self._path, line)
      self._known[answer.id] = answer
    return {key: self._known[key] for key in distinct if key in self._known}


def read_answers(path: str | os.PathLike[str]) -> dict[str, Answer]:
  """Returns the answers of a file by id; of several, the last.

  A last line that a killed writer has left unfinished is ignored.

  Raises:
    DataError: A line is not an answer.
  """
  answers = {}
  try:
    text = pathlib.Path(path).read_text('utf-8')
  except UnicodeDecodeError as error:
    raise errors.DataError(
        f'{path}: not UTF-8 ({error}); write the answers again'
    ) from error
  lines = text.splitlines(keepends=True)
  for number, line in enumerate(lines, 1):
    if line.strip() and (line.endswith('\n') or _is_json(line)):
      answer = parse(line, f'{path}: line {number}')
      answers[answer.id] = answer
  return answers


def parse(line: str, where: str) -> Answer:
  """Returns the answer of a line of JSON.

  Raises:
    DataError: The line is not an object with the texts `id` and `text`.
  """
  try:
    value = json.loads(line)
  except (ValueError, RecursionError):
    value = None
  if not isinstance(value, dict) or not all(
      isinstance(value.get(name), str) for name in ('id', 'text')
  ):
    raise errors.DataError(
        f'{where}: not an answer; write {{"id": ..., "text": ...}} with the id'
        ' of the prompt'
    )
  error = value.get('error')
  return Answer(value['id'], value['text'], str(error) if error else '')


def _is_json(line: str) -> bool:
  try:
    json.loads(line)
  except (ValueError, RecursionError):
    return False
  return True


def _drop_unfinished_line(path: pathlib.Path) -> None:
  """Ends the file with a complete line, so that lines can be appended."""
  if not path.is_file():
    return
  text = path.read_text('utf-8')
  if text and not text.endswith('\n'):
    kept, _, last = text.rpartition('\n')
    whole = f'{text}\n' if _is_json(last) else f'{kept}\n' if kept else ''
    json_files.write_text(path, whole)
