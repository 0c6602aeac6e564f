"""Chats about Python functions: source code and its description.

The user's message is a function without its docstring, and the model's message
is the first paragraph of the docstring. A chat contains the markers between the
two messages. `corpus.wrap=chat` adds the markers before the first and after the
second message.
"""

import ast
from collections.abc import Iterable, Iterator
from typing import Any

_LINES = 12  # Lines of a function in a chat.
_SHORTEST = 30  # Characters of the shortest description that is used.
# The markers that `corpus.wrap=chat` writes after a user's message. A newline
# precedes them, because the tokeniser could merge them with other text.
TURN = '<end_of_turn>\n<start_of_turn>model\n'


def about(documents: Iterable[Any]) -> Iterator[str]:
  """Yields a chat for each function with a sufficiently long docstring."""
  for document in documents:
    try:
      tree = ast.parse(document.text)
    except SyntaxError:
      continue
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _chat(node)


def _chat(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
  docstring = ast.get_docstring(function) or ''
  description = docstring.split('\n\n')[0].strip()
  if len(description) < _SHORTEST or len(function.body) < 2:
    return
  function.body = function.body[1:]
  shown = ast.unparse(function).splitlines()[:_LINES]
  yield '\n'.join(shown) + '\n' + TURN + description + '\n'
