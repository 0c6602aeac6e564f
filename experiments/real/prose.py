r"""Writes English prose of Debian's documentation packages as lines of JSON.

Each FOLDER holds the files of one package of `PACKAGES`:

  apt-get download anarchism jargon-text mh-book
  for f in *.deb; do dpkg-deb -x "$f" "prose/${f%%_*}"; done
  python -m experiments.real.prose prose.jsonl prose/* --without=brown.jsonl

A document is a part of a page, of about 12,000 characters, as long as those of
the Brown corpus. A line of the output has the fields text, name, source (the
package and its version) and licence. Paragraphs that occurred before, or that
occur in --without, are left out, as are documents of under 1,000 characters. At
most 4,000,000 characters of a package are used, so that no single book
dominates; a hash of the text selects them. README.md in this folder lists the
packages. With --model, the command also counts tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
import gzip
import hashlib
import pathlib
import re
import sys
from typing import NamedTuple

from absl import flags

from experiments.real import documents, paragraphs
from jumprelu import errors
from jumprelu.run import main as main_lib

POSITIONAL = 'paths'
MAIN_FLAGS = ('model', 'without')

_SIZE, _SMALLEST, _LARGEST = 12_000, 1000, 4_000_000
# Shorter paragraphs, such as headings, may occur several times.
_REPEATABLE = 60


class Package(NamedTuple):
  """The licence of a package's text, and the files with the text."""

  licence: str
  files: tuple[str, ...]
  # Names of files without prose, such as indexes and licences.
  skipped: str = r'^$'


_INDEXES = r'index|genindex|search|bookindex|alinks|biblio|legal|copying|gpl'
PACKAGES = {
    'anarchism': Package(
        'GPL-2', ('usr/share/doc/anarchism/html/*.html',), _INDEXES
    ),
    'debian-handbook': Package(
        'GPL-2+ or CC-BY-SA-3.0',
        ('usr/share/doc/debian-handbook/html/en-US/*.html',),
        _INDEXES,
    ),
    'debian-history': Package(
        'GPL-2+',
        ('usr/share/doc/debian-history/docs/*.en.html',),
        _INDEXES,
    ),
    'debian-reference-en': Package(
        'GPL-2+', ('usr/share/debian-reference/*.en.html',), _INDEXES
    ),
    'developers-reference': Package(
        'GPL-2', ('usr/share/developers-reference/*.html',), _INDEXES
    ),
    'gnu-standards': Package(
        'GFDL-1.3+', ('usr/share/doc/gnu-standards/*.html',)
    ),
    'jargon-text': Package(
        'public domain', ('usr/share/doc/jargon-text/jargon.txt.gz',)
    ),
    'mh-book': Package(
        'GPL-2+',
        ('usr/share/doc/mh-book/html/[!ie]*/*.html',),
        _INDEXES,
    ),
    'postgresql-doc-15': Package(
        'PostgreSQL',
        ('usr/share/doc/postgresql-doc-15/html/*.html',),
        _INDEXES + r'|release|errcodes|sql-keywords|infoschema|catalog|view-',
    ),
}


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  documents.define_flags(flag_values)
  flags.DEFINE_string(
      'without',
      None,
      'JSON lines whose paragraphs are left out, such as those of Brown.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> None:
  """Writes the prose and prints its numbers, by package and in all."""
  if len(flag_values.paths) < 2:
    raise errors.UserError(
        'usage: python -m experiments.real.prose OUT.jsonl FOLDER...'
    )
  out, *folders = map(pathlib.Path, flag_values.paths)
  seen = set()
  if flag_values.without:
    for text in documents.read_texts(pathlib.Path(flag_values.without)):
      seen.update(map(_key, text.split('\n\n')))
  counts: dict[str, list[int]] = {}
  rows = _counted(all_rows(folders, seen), counts)
  summary = documents.write(rows, out, model=flag_values.model)
  for source, (number, characters) in counts.items():
    print(f'  {source}: {number:,} documents, {characters:,} characters')
  print(f'{out}: {summary.line()}')


def all_rows(
    folders: Sequence[pathlib.Path], seen: set[bytes]
) -> Iterator[dict[str, str]]:
  """Yields the documents of packages, in the order of the packages' names.

  Args:
    folders: One folder per package, with its files from the root.
    seen: The keys of paragraphs to leave out; new paragraphs are added.

  Raises:
    MissingInputError: a folder does not exist or has no package's text.
    UserError: a package is not in `PACKAGES`, or occurs twice.
  """
  by_name: dict[str, pathlib.Path] = {}
  for folder in folders:
    name = _package(folder)
    if name in by_name:
      raise errors.UserError(
          f'{folder}: has the package of {by_name[name]}; name only one'
      )
    by_name[name] = folder
  for name in sorted(by_name):
    yield from package_rows(name, by_name[name], seen)


def package_rows(
    name: str, folder: pathlib.Path, seen: set[bytes]
) -> Iterator[dict[str, str]]:
  """Yields the documents of one package, in the order of its files."""
  package = PACKAGES[name]
  source = f'Debian {name} {_version(name, folder)}'
  rows = []
  for path in _files(package, folder):
    new = []
    for paragraph in _read(path):
      key = _key(paragraph)
      if key in seen and len(paragraph) >= _REPEATABLE:
        continue
      seen.add(key)
      new.append(paragraph)
    inner = f'{path.parent.name}/{path.name}'
    for number, text in enumerate(paragraphs.parts(new, size=_SIZE)):
      if len(text) >= _SMALLEST:
        rows.append(
            {
                'text': text,
                'name': f'{name}/{inner}#{number}',
                'source': source,
                'licence': package.licence,
            }
        )
  return iter(_limited(rows))


def _limited(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
  """Returns rows of at most `_LARGEST` characters, chosen by hash, in order."""
  kept, size = set(), 0
  by_hash = sorted(range(len(rows)), key=lambda i: _key(rows[i]['text']))
  for i in by_hash:
    size += len(rows[i]['text'])
    if size <= _LARGEST:
      kept.add(i)
  return [row for i, row in enumerate(rows) if i in kept]


def _package(folder: pathlib.Path) -> str:
  """Returns the name of the package in a folder."""
  if not folder.is_dir():
    raise errors.MissingInputError(
        f'{folder}: no such folder; unpack a package with dpkg-deb -x'
    )
  names = sorted(p.name for p in folder.glob('usr/share/doc/*') if p.is_dir())
  known = [name for name in names if name in PACKAGES]
  if len(known) != 1:
    raise errors.UserError(
        f'{folder}: holds {", ".join(known or names) or "no package"}, must be'
        f' one of {", ".join(PACKAGES)}, unpacked with dpkg-deb -x'
    )
  return known[0]


def _version(name: str, folder: pathlib.Path) -> str:
  """Returns the version in the first line of the package's changelog."""
  for file in ('changelog.Debian.gz', 'changelog.gz'):
    path = folder / 'usr/share/doc' / name / file
    if path.is_file():
      line = _decode(path).partition('\n')[0]
      if match := re.match(r'\S+ \((\S+)\)', line):
        return match[1]
  raise errors.MissingInputError(
      f'{folder}: no changelog with a version; unpack the package again'
  )


def _files(package: Package, folder: pathlib.Path) -> list[pathlib.Path]:
  skipped = re.compile(package.skipped)
  paths = {p for pattern in package.files for p in folder.glob(pattern)}
  paths = [p for p in paths if p.is_file() and not skipped.match(p.name)]
  if not paths:
    raise errors.MissingInputError(
        f'{folder}: no {" or ".join(package.files)}; unpack the package again'
    )
  return sorted(paths)


def _read(path: pathlib.Path) -> list[str]:
  """Returns the paragraphs of a file."""
  text = _decode(path)
  if '.html' in path.name:
    return paragraphs.of_html(text)
  return paragraphs.of_text(text)


def _decode(path: pathlib.Path) -> str:
  raw = path.read_bytes()
  if path.suffix == '.gz':
    try:
      raw = gzip.decompress(raw)
    except (OSError, EOFError) as error:
      raise errors.DataError(f'{path}: damaged ({error})') from None
  try:
    return raw.decode('utf-8')
  except UnicodeDecodeError:
    # The packages' older pages are in this encoding.
    return raw.decode('latin-1')


def _key(paragraph: str) -> bytes:
  return hashlib.sha256(' '.join(paragraph.split()).encode()).digest()


def _counted(
    rows: Iterable[dict[str, str]], counts: dict[str, list[int]]
) -> Iterator[dict[str, str]]:
  """Yields the rows, and adds documents and characters by source."""
  for row in rows:
    count = counts.setdefault(f'{row["source"]} ({row["licence"]})', [0, 0])
    count[0] += 1
    count[1] += len(row['text'])
    yield row


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.prose',
          sys.argv[1:],
      )
  )
