"""JSON lines of documents: written, counted and digested.

Texts of the real run are files with one JSON object per line. Its field `text`
is what `--data=FILE.jsonl` reads; the other fields name the document's origin.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import hashlib
import itertools
import json
import pathlib
from typing import Any, NamedTuple

from absl import flags

from jumprelu import errors

_TOGETHER = 64  # Documents that are tokenised together.


class Summary(NamedTuple):
  """The numbers that a command prints about the texts it wrote."""

  documents: int
  characters: int
  sha256: str
  tokens: int | None

  def line(self) -> str:
    """Returns the numbers as text."""
    tokens = '' if self.tokens is None else f', {self.tokens:,} tokens'
    return (
        f'{self.documents:,} documents, {self.characters:,} characters'
        f'{tokens}, sha256 {self.sha256}'
    )


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the paths and --model, which all commands that write texts have."""
  flags.DEFINE_list('paths', [], 'The arguments.', flag_values=flag_values)
  flags.DEFINE_string(
      'model',
      None,
      'Language model whose tokens are counted; no tokens without it.',
      flag_values=flag_values,
  )


def write(
    rows: Iterable[Mapping[str, Any]],
    out: pathlib.Path,
    *,
    model: str | None = None,
) -> Summary:
  """Writes rows with the field `text` as JSON lines; returns their numbers.

  The file appears when it is complete. The same rows result in the same bytes.

  Raises:
    UserError: the file cannot be written.
  """
  tokenizer = _tokenizer(model) if model else None
  digest, documents, characters, tokens = hashlib.sha256(), 0, 0, 0
  draft = out.with_name(f'{out.name}.partial')
  with reporting(out), contextlib.ExitStack() as stack:
    out.parent.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context(draft.open('wb'))
    for batch in _batches(rows):
      for row in batch:
        raw = (json.dumps(row, ensure_ascii=False) + '\n').encode()
        digest.update(raw)
        file.write(raw)
        documents += 1
        characters += len(row['text'])
      if tokenizer:
        texts = [row['text'] for row in batch]
        tokens += sum(map(len, tokenizer.encode_batch(texts)))
  draft.replace(out)
  return Summary(
      documents,
      characters,
      digest.hexdigest(),
      tokens if tokenizer else None,
  )


def read_texts(path: pathlib.Path) -> Iterator[str]:
  """Yields the texts of a file that `write` wrote."""
  if not path.is_file():
    raise errors.MissingInputError(f'{path}: no such file')
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      try:
        yield json.loads(line)['text']
      except (ValueError, TypeError, KeyError):
        raise errors.DataError(
            f'{path}:{number}: not a JSON object with the field text; make the'
            ' file again'
        ) from None


def _tokenizer(model: str) -> Any:
  from jumprelu import data, lm

  source = lm.find(model)
  return data.Tokenizer(source.tokenizer_path, rows=source.config.vocab)


def _batches(
    rows: Iterable[Mapping[str, Any]],
) -> Iterator[list[Mapping[str, Any]]]:
  iterator = iter(rows)
  while batch := list(itertools.islice(iterator, _TOGETHER)):
    yield batch


@contextlib.contextmanager
def reporting(path: pathlib.Path) -> Iterator[None]:
  """A context in which a failed write raises a UserError with the file."""
  try:
    yield
  except OSError as error:
    raise errors.UserError(
        f'{path}: cannot be written ({error.strerror}); free some space or'
        ' choose another file'
    ) from None
