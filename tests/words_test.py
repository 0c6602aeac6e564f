"""The rules of CONTRIBUTING.md's section "Words", over code and documents.

Python: docstrings and comments; in the package, the experiments and launch
also strings of at least two words, which are help and error texts. Documents:
every paragraph outside code blocks. A phrase may cross a line break.
"""

import ast
from collections.abc import Iterable, Iterator
import io
import itertools
import pathlib
import re
import tokenize

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CODE = ('jumprelu', 'experiments', 'launch')

# Pattern -> an example. Letters match in upper and lower case.
BANNED = {
    # Free relative clauses for nouns ("non-finite values").
    r'\bwhat (is|are|was|were|it|they|a|an|the|each|of|has|have|other|all)\b': (
        'What is not finite is selected as well.'
    ),
    r'\bwhat (makes|holds|takes|gives|needs|else)\b': 'what makes the logits',
    r'\bof which\b': 'the parts of which a step is made',
    r'\bwhere there (is|are)\b': 'where there are fewer rows',
    # Fragments.
    r'(^|[.!?] )(?-i:Or)\b': 'Rows are copied. Or they would be gathered.',
    # Verbs of speech for returning, logging and raising.
    r'\b(tells?|told|telling)\b': 'Tells how many rows there are.',
    r'\b(said|says)\b': 'Says that a block is on the disk.',
    r'\basked\b': 'as many rows as were asked for',
    r'\bsay of\b': 'all that the files say of it',
    # Position and layout: sharded, transposed, stored, after.
    r'\b(lie|lies|lying)\b': 'how its encoder lies',
    r'\b(stands?|standing)\b(?! for\b)': 'as they stand in the file',
    r'\bcuts?\b': 'latents are cut over devices',
    r'\bturn(s|ed)\b': 'the turned encoder',
    r'\bbehind\b': 'one block behind',
    # Resumed, processed, returned, except.
    r'\bgo(es)? on\b': 'goes on where a killed run stopped',
    r'\b(go|goes|going|gone|went) by\b': 'sums are gone by',
    r'\bgiv(e|es|en) back\b': 'gives back the state',
    r'\bcomes? again\b': 'latents come again in a wider SAE',
    r'\bbut for\b': 'the same but for how it is stored',
    # Other word-for-word renderings.
    r'\bso many\b': 'so many rows at once',
    r'\bmanieth\b': "at every so manieth block's end",
    r'\blots of\b': 'both lots of tokens',
    r'\bin the place of\b': 'a zero in the place of the latent',
    r'\bno (number|part of)\b': 'a value that is no number',
    r'\bonce an? (shape|target|call|segment|block|batch|run)\b': (
        'compiled once a shape'
    ),
}
# (file, phrase): why it stays. At most 30.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# A docstring names the result in the third person: "Returns", not "Return".
_IMPERATIVES = frozenset(
    'Add Average Build Call Check Compute Count Describe Draw Encode Evaluate'
    ' Fill Find Give Keep Let Limit List Load Make Mark Name Put Raise Read'
    ' Refuse Remove Return Round Run Save Say Scale Select Start Sum Take Tell'
    ' Turn Write Yield'.split()
)
_NAMES = frozenset(
    'cut each found given here lie longer most one own some take there'
    ' told'.split()
)


def _texts_of_code(source: str, strings: bool) -> Iterator[tuple[int, str]]:
  """Yields line numbers and texts; adjacent comment lines are one text."""
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  comments = {
      token.start[0]: token.string.lstrip('#: ')
      for token in tokens
      if token.type == tokenize.COMMENT
  }
  for line in comments:
    if line - 1 not in comments:
      block = itertools.takewhile(comments.__contains__, itertools.count(line))
      yield line, ' '.join(comments[number] for number in block)
  docstrings = set()
  nodes = list(ast.walk(ast.parse(source)))
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in nodes:
    if isinstance(node, kinds) and (text := ast.get_docstring(node)):
      docstrings.add(node.body[0].value)
      yield node.body[0].lineno, text
  for node in nodes if strings else ():
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and ' ' in node.value.strip()
        and node not in docstrings
    ):
      yield node.lineno, node.value


def _texts_of_document(source: str) -> Iterator[tuple[int, str]]:
  """Yields line numbers and paragraphs; each row of a table is one.

  Code blocks are left out, and so is the first column of a table whose header
  is `| not | but |`.
  """
  paragraph, start = [], 1
  in_code = in_bad_examples = False
  # The empty line at the end finishes the last paragraph.
  for number, line in enumerate([*source.splitlines(), ''], 1):
    is_row = line.startswith('|')
    in_bad_examples = is_row and (in_bad_examples or line == '| not | but |')
    is_fence = line.startswith('```')
    in_code ^= is_fence
    is_text = not (in_code or is_fence or re.match(r' {4}|\s*$', line))
    if paragraph and (is_row or not is_text):
      yield start, ' '.join(paragraph)
      paragraph = []
    if is_text:
      start = start if paragraph else number
      paragraph.append(line.split('|')[2] if in_bad_examples else line.strip())


def _matches(text: str, exceptions: Iterable[str] = ()) -> list[str]:
  """Returns each match of a banned pattern with the words around it."""
  text = ' '.join(text.split())
  for phrase in exceptions:
    text = text.replace(phrase, '')
  return [
      text[max(match.start() - 30, 0) : match.end() + 30]
      for pattern in BANNED
      for match in re.finditer(pattern, text, re.IGNORECASE)
  ]


def _python(*folders: str) -> list[pathlib.Path]:
  return sorted(p for name in folders for p in (_ROOT / name).rglob('*.py'))


def _documents() -> list[pathlib.Path]:
  """Returns all documents except the changelog, which is a record."""
  folders = ('docs', *_CODE)
  files = [
      path
      for name in folders
      for path in (_ROOT / name).rglob('*.md')
      # Not a part of the checkout.
      if 'node_modules' not in path.parts
  ]
  return [_ROOT / 'README.md', _ROOT / 'CONTRIBUTING.md', *sorted(files)]


def _texts() -> Iterator[tuple[pathlib.Path, int, str]]:
  for path in _python(*_CODE, 'tests'):
    strings = path.relative_to(_ROOT).parts[0] in _CODE
    for line, text in _texts_of_code(path.read_text('utf-8'), strings):
      yield path, line, text
  for path in _documents():
    for line, text in _texts_of_document(path.read_text('utf-8')):
      yield path, line, text


def test_no_text_has_a_banned_pattern():
  offenders = []
  for path, line, text in _texts():
    name = path.relative_to(_ROOT).as_posix()
    phrases = [phrase for file, phrase in EXCEPTIONS if file == name]
    offenders += [f'{name}:{line}: {m}' for m in _matches(text, phrases)]
  assert not offenders, '\n'.join(offenders)


@pytest.mark.parametrize('pattern', BANNED)
def test_each_pattern_matches_its_example(pattern):
  assert re.search(pattern, BANNED[pattern], re.IGNORECASE)


def test_a_planted_sentence_is_reported_with_its_line():
  comment, text = 'x = 1\n# The encoder is\n# turned.\n', 'a run that goes on'
  assert _reported(_texts_of_code(comment, strings=False)) == [2]
  docstring = f'def f():\n  """Returns {text}."""\n'
  assert _reported(_texts_of_code(docstring, strings=False)) == [2]
  error = f'x = 1\nraise ValueError("{text}")\n'
  assert _reported(_texts_of_code(error, strings=True)) == [2]
  assert not _reported(_texts_of_code(error, strings=False))
  document = '# A run\n\nIt goes\non.\n\n    goes on\n\n```\ngoes on\n```\n'
  assert _reported(_texts_of_document(document)) == [3]
  table = '| not | but |\n|---|---|\n| goes on | resumes |\n'
  assert not _reported(_texts_of_document(table))
  assert _reported(_texts_of_document(table.replace('not', 'now'))) == [3]
  plain = 'The state resumes; or the run stops.\n'
  assert not _reported(_texts_of_document(plain))


def _reported(texts: Iterable[tuple[int, str]]) -> list[int]:
  return [line for line, text in texts if _matches(text)]


def test_exceptions_are_few_explained_and_in_use():
  assert len(EXCEPTIONS) <= 30
  assert all(EXCEPTIONS.values())
  texts = {}
  for path, _, text in _texts():
    name = path.relative_to(_ROOT).as_posix()
    texts[name] = f'{texts.get(name, "")} {" ".join(text.split())}'
  unused = [
      (name, phrase)
      for name, phrase in EXCEPTIONS
      if not _matches(phrase) or phrase not in texts[name]
  ]
  assert not unused


def _imperatives(tree: ast.AST) -> list[tuple[int, str]]:
  """Returns line and first word of docstrings that start with an imperative."""
  offenders = []
  for node in ast.walk(tree):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      first = re.split(r'\W', ast.get_docstring(node) or '')[0]
      if first in _IMPERATIVES:
        offenders.append((node.lineno, first))
  return offenders


def _vague_names(tree: ast.AST) -> list[tuple[int, str]]:
  """Returns line and name of banned parameters and locals."""
  offenders = []
  for node in ast.walk(tree):
    if isinstance(node, ast.arg):
      name = node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      name = node.id
    else:
      continue
    if name in _NAMES:
      offenders.append((node.lineno, name))
  return offenders


@pytest.mark.parametrize('check', [_imperatives, _vague_names])
def test_functions_have_third_person_docstrings_and_named_contents(check):
  offenders = [
      f'{path.relative_to(_ROOT)}:{line}: {word}'
      for path in _python(*_CODE)
      for line, word in check(ast.parse(path.read_text('utf-8')))
  ]
  assert not offenders, '\n'.join(offenders)


def test_planted_imperatives_and_vague_names_are_reported():
  tree = ast.parse(
      'def good(rows):\n  """Returns the rows."""\n  matches = rows\n'
      'def bad(given):\n  """Return, in order, the rows."""\n  found = given\n'
  )
  assert _imperatives(tree) == [(4, 'Return')]
  assert sorted(_vague_names(tree)) == [(4, 'given'), (6, 'found')]
