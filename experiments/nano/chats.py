"""Chats about Python functions: their source, and what their author said of it.

The user's turn is a function without its docstring, the model's turn the
docstring's first paragraph, as Gemma's turns (`corpus.wrap=chat` adds the
turn's start before, and an end after).
"""

import ast
from collections.abc import Iterable, Iterator
from typing import Any

_LINES = 12  # Of a function that is shown.
_SHORTEST = 30  # Characters of a docstring's paragraph that says something.
# As `corpus.wrap=chat` writes it after a user's turn; a line end before it
# keeps the tokens of the text from running into it.
TURN = '<end_of_turn>\n<start_of_turn>model\n'


def about(documents: Iterable[Any]) -> Iterator[str]:
  """Yields a chat for each function that says what it does."""
  for document in documents:
    try:
      tree = ast.parse(document.text)
    except SyntaxError:
      continue
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _chat(node)


def _chat(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
  said = (ast.get_docstring(function) or '').split('\n\n')[0].strip()
  if len(said) < _SHORTEST or len(function.body) < 2:
    return
  function.body = function.body[1:]
  shown = ast.unparse(function).splitlines()[:_LINES]
  yield '\n'.join(shown) + '\n' + TURN + said + '\n'
