"""Labelled rows of tokens: what probes are trained and tested on.

Python's tokenizer and parser label the documents of the standard library that
training holds out, token by token; files of the user's are labelled text by
text. Documents, or equal texts, lie on one side of train and test.
"""

from collections.abc import Iterable, Iterator, Sequence
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import data, errors
from jumprelu.array_typing import Bool, Int
from jumprelu.data import documents, packing, sources
from jumprelu.evals.measures import config as config_lib
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import python_source

# Of documents, by hash.
_TEST_PERCENT = 30
# Of source code, about three and a half make a token.
_CHARACTERS = 4


class Labelled(NamedTuple):
  """Rows of one document each; an example is a token, or all of a row."""

  name: str
  tasks: tuple[str, ...]
  tokens: Int[np.ndarray, 'rows positions']
  # 1 and 0; -1 is no example. One example a row where `pooled`.
  labels: Int[np.ndarray, 'rows examples tasks']
  documents: Int[np.ndarray, ' rows']
  test: Bool[np.ndarray, ' rows']
  pooled: bool


class Layout(NamedTuple):
  """What a row looks like to the model."""

  tokenizer: data.Tokenizer
  sequence_length: int
  # What precedes every text (`packing.keep_mask`).
  prefix: tuple[int, ...] = ()

  @property
  def room(self) -> int:
    """Returns how many tokens of text fit into a row."""
    return self.sequence_length - 1 - len(self.prefix)

  def row(self, ids: Sequence[int]) -> Int[np.ndarray, ' positions']:
    """Returns BOS, prefix and text, cut or padded to a row."""
    row = np.full(self.sequence_length, packing.PAD, np.int32)
    line = [packing.BOS, *self.prefix, *ids[: self.room]]
    row[: len(line)] = line
    return row


def layout_of(context: context_lib.Context) -> Layout:
  """Returns the layout of an evaluation's own text."""
  model, cache = context.model, context.text.cache
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  return Layout(tokenizer, cache.sequence_length, tuple(cache.user_prefix))


def load(
    config: config_lib.Probing, layout: Layout, *, held_out_percent: int
) -> Iterator[Labelled]:
  """Yields the sets that the config names.

  Raises:
    MissingInputError, DataError, UserError: if a file is missing, damaged, or
      has too few texts of a label.
  """
  if not config.data:
    held_out = data.held_out_documents(
        sources.make_source('stdlib'), held_out_percent
    )
    yield of_python(held_out, layout, tokens=config.tokens)
    return
  for path in _files(pathlib.Path(config.data)):
    yield of_file(path, layout, texts=config.texts)


def of_python(
    found: Iterable[documents.Document], layout: Layout, *, tokens: int
) -> Labelled:
  """Labels the tokens of documents of Python source.

  Each row is a window that starts at a line; windows are drawn from all over
  the documents. A token's label is that of its first character that is not
  white space.
  """
  held = list(found)
  size = _CHARACTERS * layout.room
  windows = [
      (i, start) for i, d in enumerate(held) for start in _cuts(d.text, size)
  ]
  order = np.random.RandomState(0).permutation(len(windows))
  properties: dict[int, np.ndarray] = {}
  rows, labels, origins = [], [], []
  for number in order[: -(-tokens // layout.sequence_length)]:
    i, start = windows[number]
    if i not in properties:
      properties[i] = _properties(held[i])
    # More than most rows hold: the window ends where the row does.
    text = held[i].text[start : start + 2 * size]
    ids, firsts = layout.tokenizer.encode_with_starts(text)
    marks = np.full((layout.sequence_length, properties[i].shape[1]), -1)
    at = start + np.asarray(firsts[: layout.room], int)
    before = 1 + len(layout.prefix)
    marks[before : before + len(at)] = properties[i][at]
    rows.append(layout.row(ids))
    labels.append(marks)
    origins.append(i)
  if not rows:
    raise errors.UserError('probing: no Python source is held out to label')
  return Labelled(
      'python',
      python_source.PROPERTIES,
      np.stack(rows),
      np.stack(labels).astype(np.int8),
      np.asarray(origins),
      np.asarray([_is_test(held[i].name) for i in origins]),
      pooled=False,
  )


def _properties(document):
  try:
    return python_source.properties(document.text)
  except SyntaxError as e:
    raise errors.DataError(
        f'{document.name}: not Python that this Python reads ({e.msg}); use'
        ' --measure.probing.data'
    ) from None


def _cuts(text, size):
  """Returns where windows of about `size` characters start: at lines."""
  starts = [0]
  while (end := text.find('\n', starts[-1] + size) + 1) > 0:
    starts.append(end)
  return starts[:-1] if starts[-1] == len(text) else starts


def _is_test(key):
  return documents.is_held_out(f'probing/{key}', _TEST_PERCENT)


def _files(path):
  if path.is_dir():
    found = sorted(path.glob('*.jsonl'))
    if found:
      return found
  elif path.is_file():
    return [path]
  raise errors.MissingInputError(
      f'--measure.probing.data={path}: no such .jsonl file, nor a directory'
      ' that holds some'
  )


def of_file(path: pathlib.Path, layout: Layout, *, texts: int) -> Labelled:
  """Reads one file; each of its labels is a task, of two the second alone."""
  found = []
  for number, line in enumerate(_lines(path), start=1):
    if line.strip():
      found.append(_record(line, f'{path}:{number}'))
  order = np.random.RandomState(0).permutation(len(found))[:texts]
  chosen = [found[i] for i in order]
  names = sorted({label for _, label in chosen})
  if len(names) < 2:
    raise errors.UserError(
        f'{path}: field "label" has {len(names)} value; give two or more'
    )
  names = names[1:] if len(names) == 2 else names
  keys = [documents.sha256(text.strip()) for text, _ in chosen]
  _, origins = np.unique(keys, return_inverse=True)
  labels = [[[label == name for name in names]] for _, label in chosen]
  ids = layout.tokenizer.encode_batch([text for text, _ in chosen])
  return Labelled(
      path.stem,
      tuple(names),
      np.stack([layout.row(line) for line in ids]),
      np.asarray(labels, np.int8),
      origins,
      np.asarray([_is_test(key) for key in keys]),
      pooled=True,
  )


def _lines(path):
  try:
    return path.read_text('utf-8-sig').split('\n')
  except UnicodeDecodeError as e:
    raise errors.DataError(
        f'{path}: not UTF-8 (byte {e.start}); convert it'
    ) from None


def _record(line: str, place: str) -> tuple[str, str]:
  """Returns a line's text and label."""
  try:
    record: Any = json.loads(line)
  except json.JSONDecodeError as e:
    raise errors.DataError(
        f'{place}: not JSON ({e.msg}); a line holds one JSON object'
    ) from None
  record = record if isinstance(record, dict) else {}
  text, label = record.get('text'), record.get('label')
  if not isinstance(text, str) or not text.strip():
    raise errors.DataError(f'{place}: field "text" must be a text')
  if not isinstance(label, str | int):
    raise errors.DataError(f'{place}: field "label" must be a text or integer')
  return text, str(label)
