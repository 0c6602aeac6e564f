"""Paragraphs of prose from HTML and plain text, with the standard library.

Navigation, tables, code blocks, scripts and tables of contents are left out, as
are paragraphs with less than two thirds of letters and spaces, and lists of
words.
"""

from collections.abc import Iterable, Iterator
import html.parser
import itertools
import re

_LEFT_OUT = frozenset(
    'head script style nav header footer pre table select form svg math'
    ' button'.split()
)
# Classes of elements that repeat or index the text, in the output of the
# generators DocBook, Sphinx and Texinfo.
_CLASSES = re.compile(
    r'(^|[ _-])(nav\w*|toc\w*|contents|list-of-\w+|sidebar|sphinxsidebar|related'
    r'|footer\w*|header|headerlink|index\w*|genindextable|screen|synopsis'
    r'|programlisting|highlight\w*|smallexample|example|copyright|legalnotice'
    r'|document-breadcrumb\w*)($|[ _-])'
)
_BLOCKS = frozenset(
    'p div section article li dt dd ul ol dl blockquote body h1 h2 h3 h4 h5 h6'
    ' hr center td'.split()
)
_VOID = frozenset(
    'area base br col embed hr img input link meta source track wbr'.split()
)
_SPACE = re.compile(r'\s+')
# Marks of a link to the own place, and of a footnote.
_MARKS = re.compile(r'[¶§]\s*$|\s*\[\d+\]')
_MIN_SHARE = 2 / 3
# More adjacent paragraphs of fewer characters are a list.
_SHORT, _RUN = 40, 4
_WORD = re.compile(r'[^\W\d_]{2,}')


class _Prose(html.parser.HTMLParser):
  """A parser that collects paragraphs outside of elements to leave out."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.paragraphs: list[str] = []
    self._pieces: list[str] = []
    # The open elements inside an element to leave out, which is the first.
    self._skipped: list[str] = []

  def handle_starttag(self, tag, attrs):
    if self._skipped:
      if tag not in _VOID:
        self._skipped.append(tag)
      return
    if tag in _BLOCKS or tag in _LEFT_OUT:
      self.end_paragraph()
    classes = ' '.join(v or '' for k, v in attrs if k in ('class', 'role'))
    if tag in _VOID:
      if tag == 'br':
        self._pieces.append('\n')
    elif tag in _LEFT_OUT or (tag != 'body' and _CLASSES.search(classes)):
      self._skipped.append(tag)

  def handle_endtag(self, tag):
    if self._skipped:
      # An end tag also closes the elements whose end tags are missing.
      if tag in self._skipped:
        while self._skipped.pop() != tag:
          pass
      elif tag in ('body', 'html'):
        self._skipped.clear()
      return
    if tag in _BLOCKS:
      self.end_paragraph()

  def handle_startendtag(self, tag, attrs):
    if tag in _VOID:
      self.handle_starttag(tag, attrs)

  def handle_data(self, data):
    if not self._skipped:
      self._pieces.append(data)

  def end_paragraph(self) -> None:
    """Ends the paragraph, and keeps it unless it is empty."""
    text = clean(''.join(self._pieces))
    self._pieces = []
    if text:
      self.paragraphs.append(text)


def clean(text: str) -> str:
  """Returns a paragraph on one line, without marks of links and footnotes."""
  return _MARKS.sub('', _SPACE.sub(' ', text)).strip()


def of_html(text: str) -> list[str]:
  """Returns the paragraphs of an HTML page."""
  parser = _Prose()
  parser.feed(text)
  parser.close()
  parser.end_paragraph()
  return _without_lists(filter(is_prose, parser.paragraphs))


def of_text(text: str) -> list[str]:
  """Returns the paragraphs of a plain text, which blank lines separate.

  Indented examples that are not prose are left out.
  """
  cleaned = map(clean, re.split(r'\n\s*\n', text))
  return _without_lists(filter(is_prose, cleaned))


def is_prose(paragraph: str) -> bool:
  """Returns whether a paragraph has words and consists mainly of letters."""
  letters = sum(c.isalpha() or c.isspace() for c in paragraph)
  words = len(_WORD.findall(paragraph))
  return bool(words) and letters >= _MIN_SHARE * len(paragraph)


def _without_lists(texts: Iterable[str]) -> list[str]:
  """Returns the paragraphs without runs of short ones."""
  kept: list[str] = []
  for short, run in itertools.groupby(texts, lambda t: len(t) < _SHORT):
    run = list(run)
    if not short or len(run) <= _RUN:
      kept += run
  return kept


def parts(paragraphs: list[str], *, size: int) -> Iterator[str]:
  """Yields texts of about `size` characters, made of whole paragraphs.

  A text ends after the paragraph that reaches the size; the last text may be
  shorter, and is part of the text before it if it is shorter than a quarter.
  """
  texts: list[list[str]] = [[]]
  length = 0
  for paragraph in paragraphs:
    if length >= size:
      texts.append([])
      length = 0
    texts[-1].append(paragraph)
    length += len(paragraph)
  if len(texts) > 1 and length < size // 4:
    texts[-2:] = [texts[-2] + texts[-1]]
  for text in texts:
    if text:
      yield '\n\n'.join(text) + '\n'
