"""Labelled rows of tokens, for training and testing probes.

By default the text is the held-out part of Python's standard library, and each
token is labelled by Python's tokenizer and parser. In a user's files, each text
has a label. All rows of a document, and all copies of a text, are either in the
train set or in the test set.
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

# Share of documents in the test set, assigned by hash.
_TEST_PERCENT = 30
# Characters per token of source code, rounded up from about 3.5.
_CHARACTERS = 4


class Labelled(NamedTuple):
  """Rows of one document each; an example is a token, or a pooled row.

  A task is to predict whether an example has a property.
  """

  name: str
  tasks: tuple[str, ...]
  tokens: Int[np.ndarray, 'rows positions']
  # 1 for yes, 0 for no, -1 if the token is no example. If `pooled`, each row is
  # one example.
  labels: Int[np.ndarray, 'rows examples tasks']
  documents: Int[np.ndarray, ' rows']
  test: Bool[np.ndarray, ' rows']
  pooled: bool


class Layout(NamedTuple):
  """Layout of a row: BOS, prefix, text and padding."""

  tokenizer: data.Tokenizer
  sequence_length: int
  # Tokens before every text (see `packing.keep_mask`).
  prefix: tuple[int, ...] = ()

  @property
  def room(self) -> int:
    """Returns the number of text tokens that fit into a row."""
    return self.sequence_length - 1 - len(self.prefix)

  def row(self, ids: Sequence[int]) -> Int[np.ndarray, ' positions']:
    """Returns BOS, prefix and text, truncated or padded to a row."""
    row = np.full(self.sequence_length, packing.PAD, np.int32)
    line = [packing.BOS, *self.prefix, *ids[: self.room]]
    row[: len(line)] = line
    return row


def layout_of(context: context_lib.Context) -> Layout:
  """Returns the layout of the evaluation's rows."""
  model, cache = context.model, context.text.cache
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  return Layout(tokenizer, cache.sequence_length, tuple(cache.user_prefix))


def load(
    config: config_lib.Probing, layout: Layout, *, held_out_percent: int
) -> Iterator[Labelled]:
  """Yields a set for each file in `config.data`, or that of Python source.

  Raises:
    MissingInputError: if there is no file.
    DataError: if a file is not UTF-8, a line of it is not a labelled text, or a
      document of the standard library is not valid Python.
    UserError: if a file has fewer than two labels, or no source is held out.
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
    held_out: Iterable[documents.Document], layout: Layout, *, tokens: int
) -> Labelled:
  """Returns labelled tokens of documents of Python source.

  Each row is a window that starts at the start of a line. Windows are drawn at
  random from all documents. A token's label is that of its first character that
  is not white space.
  """
  held = list(held_out)
  size = _CHARACTERS * layout.room
  windows = [
      (i, start)
      for i, d in enumerate(held)
      for start in _window_starts(d.text, size)
  ]
  order = np.random.RandomState(0).permutation(len(windows))
  properties: dict[int, np.ndarray] = {}
  rows, labels, origins = [], [], []
  for number in order[: -(-tokens // layout.sequence_length)]:
    i, start = windows[number]
    if i not in properties:
      properties[i] = _properties(held[i])
    # About twice the length of a row, because `layout.row` truncates it.
    text = held[i].text[start : start + 2 * size]
    ids, firsts = layout.tokenizer.encode_with_starts(text)
    marks = np.full((layout.sequence_length, properties[i].shape[1]), -1)
    at = start + np.asarray(firsts[: layout.room], int)
    first = 1 + len(layout.prefix)
    marks[first : first + len(at)] = properties[i][at]
    rows.append(layout.row(ids))
    labels.append(marks)
    origins.append(i)
  if not rows:
    raise errors.UserError(
        'probing: no Python source is held out; use --measure.probing.data'
    )
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
        f'{document.name}: not Python source of the running version ({e.msg});'
        ' use --measure.probing.data'
    ) from None


def _window_starts(text, size):
  """Returns starts of lines that are at least `size` characters apart."""
  starts = [0]
  while (end := text.find('\n', starts[-1] + size) + 1) > 0:
    starts.append(end)
  return starts[:-1] if starts[-1] == len(text) else starts


def _is_test(key):
  return documents.is_held_out(f'probing/{key}', _TEST_PERCENT)


def _files(path):
  if path.is_dir():
    paths = sorted(path.glob('*.jsonl'))
    if paths:
      return paths
  elif path.is_file():
    return [path]
  raise errors.MissingInputError(
      f'--measure.probing.data={path}: no such .jsonl file, and no directory'
      ' with .jsonl files'
  )


def of_file(path: pathlib.Path, layout: Layout, *, texts: int) -> Labelled:
  """Returns the labelled texts of one file, at most `texts` drawn at random.

  Each label is a task. If there are only two, the second label in alphabetical
  order is the only task, because that of the first would be its complement.

  Raises:
    DataError: if the file is not UTF-8, or a line is not a labelled text.
    UserError: if there are fewer than two labels.
  """
  records = []
  for number, line in enumerate(_lines(path), start=1):
    if line.strip():
      records.append(_record(line, f'{path}:{number}'))
  order = np.random.RandomState(0).permutation(len(records))[:texts]
  chosen = [records[i] for i in order]
  names = sorted({label for _, label in chosen})
  if len(names) < 2:
    raise errors.UserError(
        f'{path}: field "label" must have at least 2 different values, got'
        f' {len(names)}'
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
        f'{path}: not UTF-8 (byte {e.start}); convert it to UTF-8'
    ) from None


def _record(line: str, place: str) -> tuple[str, str]:
  """Returns a line's text and label."""
  try:
    record: Any = json.loads(line)
  except (ValueError, RecursionError) as e:
    reason = getattr(e, 'msg', None) or e
    raise errors.DataError(
        f'{place}: not JSON ({reason}); write one JSON object per line'
    ) from None
  record = record if isinstance(record, dict) else {}
  text, label = record.get('text'), record.get('label')
  if not isinstance(text, str) or not text.strip():
    raise errors.DataError(f'{place}: field "text" must be a non-empty string')
  if not isinstance(label, str | int):
    raise errors.DataError(
        f'{place}: field "label" must be a string or an integer'
    )
  return text, str(label)
