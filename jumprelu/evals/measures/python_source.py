"""Properties of characters of Python source, from its tokenizer and parser.

Each property depends only on the preceding text and the token itself, so a
causal language model can represent it.
"""

import ast
import io
import keyword
import tokenize
import warnings

import numpy as np

from jumprelu.array_typing import Bool

PROPERTIES = (
    'string',  # Other than a docstring.
    'docstring',
    'comment',
    'keyword',
    'number',
    'operator',
    'attribute',  # The name after a dot.
    'defined_name',  # The name after `def` or `class`.
    'in_brackets',  # Within any bracket, white space included.
    'nested_block',  # In two or more indented blocks, white space included.
)
_INDEX = {name: i for i, name in enumerate(PROPERTIES)}
# Tokens of f-strings (since Python 3.12) and t-strings (since Python 3.14).
_STARTS = ('FSTRING_START', 'TSTRING_START')
_ENDS = ('FSTRING_END', 'TSTRING_END')


def properties(text: str) -> Bool[np.ndarray, 'characters properties']:
  """Returns which of `PROPERTIES` each character has.

  An f-string counts as one string from its first to its last character, as in
  the tokenizers before Python 3.12.

  Raises:
    SyntaxError: if the text is not valid Python.
  """
  marks = _Marks(text)
  previous, opened, start = '', 0, (1, 0)
  docstrings = _docstrings(text)
  try:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
      kind = tokenize.tok_name[token.type]
      if kind in _STARTS:
        start = token.start if not opened else start
        opened += 1
        continue
      if kind in _ENDS:
        opened -= 1
        kind = 'STRING'
      if not opened:
        if tokenize.tok_name[token.type] not in _ENDS:
          start = token.start
        marks.add(token, kind, previous, start, start in docstrings)
        if kind not in ('NL', 'COMMENT'):
          previous = token.string
  except tokenize.TokenError as e:
    raise SyntaxError(str(e)) from None
  return marks.values


class _Marks:
  """Properties of the characters so far, and the current nesting depth."""

  def __init__(self, text):
    lines = text.split('\n')
    self.starts = np.cumsum([0] + [len(line) + 1 for line in lines])
    self.values = np.zeros((len(text), len(PROPERTIES)), bool)
    self.brackets = self.blocks = self.last = 0

  def at(self, place):
    row, column = place
    return self.starts[row - 1] + column

  def add(self, token, kind, previous, start, docstring):
    begin, end = self.at(start), self.at(token.end)
    text = token.string
    if kind == 'INDENT':
      self.blocks += 1
    elif kind == 'DEDENT':
      self.blocks -= 1
    name = None
    if kind == 'STRING':
      name = 'docstring' if docstring else 'string'
    elif kind == 'NAME':
      name = _kind_of_name(text, previous)
    elif kind in ('COMMENT', 'NUMBER'):
      name = kind.lower()
    elif kind == 'OP':
      name = 'operator'
    if name:
      self.values[begin:end, _INDEX[name]] = True
    # White space before a token has the token's nesting depth.
    region = slice(min(self.last, begin), end)
    self.values[region, _INDEX['in_brackets']] = self.brackets > 0
    self.values[region, _INDEX['nested_block']] = self.blocks > 1
    self.last = end
    if kind == 'OP':
      self.brackets += (text in '([{') - (text in ')]}')


def _kind_of_name(text, previous):
  if keyword.iskeyword(text):
    return 'keyword'
  if previous == '.':
    return 'attribute'
  if previous in ('def', 'class'):
    return 'defined_name'
  return None


def _docstrings(text):
  """Returns the starts of docstrings as (row, column) pairs."""
  with warnings.catch_warnings():
    # Warnings of invalid escapes are ignored, because only a later version of
    # Python rejects the source.
    warnings.simplefilter('ignore')
    tree = ast.parse(text)
  starts = set()
  for node in ast.walk(tree):
    body = getattr(node, 'body', None)
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    if not isinstance(node, kinds) or not body:
      continue
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
      if isinstance(first.value.value, str):
        starts.add((first.value.lineno, first.value.col_offset))
  return starts
