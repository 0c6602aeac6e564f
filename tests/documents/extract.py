"""The Python blocks and commands of all documents, in their order.

A Python block is fenced as `python`. A block of commands is fenced as `sh`, or
is indented, follows an empty line, and its first word is one of `PROGRAMS` or
`$`. After a `$`, only lines with one are commands; the others are output.
Commands in the running text are in backquotes.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ('*.md', *(f'{f}/**/*.md' for f in ('docs', 'experiments')))
    for path in ROOT.glob(pattern)
    # Its commands are those of earlier versions.
    if path.name != 'CHANGELOG.md'
)
# Other languages of fences than these three are refused: no test reads them.
LANGUAGES = {
    'python': 'runs',
    'sh': 'runs',
    'sql': 'runs in tests/features/formats_test.py',
    'text': 'is output',
    '': 'is output',
}
PROGRAMS = (
    *('apt-get', 'bash', 'docker', 'dpkg-deb', 'gcloud', 'hf', 'jumprelu'),
    *('kubectl', 'mkdir', 'npm', 'pip', 'pytest', 'python', 'xpk'),
)


@dataclasses.dataclass(frozen=True)
class Block:
  """A block of code.

  Attributes:
    line: The number of its first line.
    language: The word of its fence; 'sh' for an indented block of commands, and
      'text' for other indented blocks.
    text: Its lines, without their indent.
  """

  line: int
  language: str
  text: str


@dataclasses.dataclass(frozen=True)
class Command:
  """A command: its line in the document and its words, program first."""

  line: int
  words: tuple[str, ...]


def read(document: str) -> str:
  return (ROOT / document).read_text('utf-8')


def blocks(text: str) -> Iterator[Block]:
  """Yields the blocks of code of a document."""
  lines = text.splitlines()
  number = 0
  while number < len(lines):
    start = number
    if fence := re.match(r' *```(\w*)$', lines[number]):
      while not re.match(r' *```$', lines[number := number + 1]):
        pass
      body = '\n'.join(lines[start + 1 : number])
      yield Block(start + 2, fence[1], body + '\n')
    elif lines[number].startswith('    ') and not (
        number and lines[number - 1]
    ):
      while number < len(lines) and lines[number].startswith('    '):
        number += 1
      body = '\n'.join(line[4:] for line in lines[start:number])
      first = body.split(maxsplit=1)[0]
      is_shell = first in (*PROGRAMS, '$')
      yield Block(start + 1, 'sh' if is_shell else 'text', body + '\n')
    number += 1


def commands(block: Block) -> Iterator[Command]:
  """Yields the commands of a block, without redirections and assignments."""
  lines = re.sub(r'\\\n', '\\\\ ', block.text).splitlines()
  is_session = block.text.startswith('$ ')
  number = block.line
  for line in lines:
    if not is_session or line.startswith('$ '):
      for words in _split(line.removeprefix('$ ').replace('\\ ', ' ')):
        yield Command(number, words)
    number += 1 + line.count('\\ ')


def _split(line: str) -> Iterator[tuple[str, ...]]:
  """Yields the words of each command in a line of shell."""
  lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
  lexer.whitespace_split = True
  words: list[str] = []
  for word in [*lexer, ';']:
    if not set(word) <= set('();<>|&'):
      words.append(word)
      continue
    while words and (words[0] in ('do', 'export') or _is_assignment(words[0])):
      words.pop(0)
    if words and words[0] not in ('for', 'done'):
      yield tuple(words)
    words = []


def _is_assignment(word: str) -> bool:
  return bool(re.match(r'[A-Z_]+=', word))


def inline(text: str) -> Iterator[Command]:
  """Yields the commands of this project in the running text of a document."""
  text = _without_code(text)
  for match in re.finditer(r'`((?:jumprelu|python -m) [a-z][^`]*)`', text):
    (words,) = _split(match[1].replace('\n', ' '))
    yield Command(text.count('\n', 0, match.start()) + 1, words)


def flags(text: str) -> set[str]:
  """Returns the names of flags in the running text of a document."""
  spans = re.findall(r'`([^`]+)`', _without_code(text))
  return {
      name
      for span in spans
      for name in re.findall(r'(?:^|\s)--([a-z][\w.]*)', span)
  }


def _without_code(text: str) -> str:
  """Returns a document with empty lines in place of its blocks of code."""
  lines = text.splitlines()
  for block in blocks(text):
    for number in range(block.text.count('\n')):
      lines[block.line - 1 + number] = ''
    if block.language in LANGUAGES and lines[block.line - 2].startswith('```'):
      lines[block.line - 2] = lines[block.line - 1 + block.text.count('\n')] = (
          ''
      )
  return '\n'.join(lines)
