"""`experiments.real.prose` keeps prose, once, with its source and licence."""

import gzip
import hashlib
import json

import pytest

from experiments.real import paragraphs, prose
from jumprelu import errors
from jumprelu.run import main

_SENTENCE = 'The {0} of the county met on Monday and talked about {0} again. '
_PAGE = """<!DOCTYPE html><html><head><title>Not text</title>
<style>p {{ color: red }}</style></head><body>
<div class="navheader"><table><tr><td>Prev</td></tr></table>Next page</div>
<div class="toc"><p>1. A table of contents in a paragraph</p></div>
<h2>A heading<a class="headerlink" href="#x">¶</a></h2>
<p>{first}&mdash;with an <em>entity</em><br>
and a second line.</p>
<pre>int main(void) {{ return 0; }}</pre>
<p>{second}<p>{third}
<ul><li><p>An item</p></li></ul>
<script>var hidden = "words of a script";</script>
<p>{{ 12 + 34 == 46; }} [*] 0x1F</p>
</body></html>"""


def _long(word, times=20):
  return (_SENTENCE.format(word) * times).strip()


def _package(folder, name, pages, *, version='1.2-3'):
  """Writes the files of an unpacked package; returns its folder."""
  doc = folder / 'usr/share/doc' / name
  doc.mkdir(parents=True)
  log = f'{name} ({version}) unstable; urgency=low\n'
  (doc / 'changelog.Debian.gz').write_bytes(gzip.compress(log.encode()))
  for path, text in pages.items():
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode()
    file.write_bytes(gzip.compress(raw) if file.suffix == '.gz' else raw)
  return folder


_HTML = 'usr/share/doc/anarchism/html'


def _book(folder, **texts):
  page = _PAGE.format(**texts)
  return _package(
      folder,
      'anarchism',
      {f'{_HTML}/secA.html': page, f'{_HTML}/index.html': page.upper()},
  )


def _jargon(folder, text):
  path = 'usr/share/doc/jargon-text/jargon.txt.gz'
  return _package(folder, 'jargon-text', {path: text})


def _run(*argv):
  return main.run_command(prose, 'prose', [str(arg) for arg in argv])


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_html_is_read_without_navigation_code_and_scripts():
  page = _PAGE.format(first='One', second=_long('cat'), third='Three words')
  assert paragraphs.of_html(page) == [
      'A heading',
      'One—with an entity and a second line.',
      _long('cat'),
      'Three words',
      'An item',
  ]


def test_an_unclosed_element_to_leave_out_ends_with_its_parent():
  page = '<body><div class="toc"><ul><li>Not this</div><p>But this</p></body>'
  assert paragraphs.of_html(page) == ['But this']


def test_plain_text_is_read_without_rules_and_lists_of_words():
  first = _long('start').replace('. ', '.\n   ')
  words = '\n\n'.join(f'entry {word}' for word in 'abcdefg')
  text = f'{first}\n\n+-----+-----+\n\n{words}\n\n{_long("end")}\n'
  assert paragraphs.of_text(text) == [_long('start'), _long('end')]


def test_parts_are_whole_paragraphs_of_about_the_size():
  texts = [f'{i} ' + 'x' * 98 for i in range(25)]
  parts = list(paragraphs.parts(texts, size=400))
  assert '\n\n'.join(part.strip() for part in parts) == '\n\n'.join(texts)
  assert {len(part.split('\n\n')) for part in parts[:-1]} == {4}
  # The rest of one paragraph is part of the last text.
  assert len(parts) == 6 or len(parts[-1]) >= 100


def test_documents_have_text_name_source_and_licence(tmp_path, capsys):
  book = _book(
      tmp_path / 'a', first=_long('mayor'), second=_long('cat'), third='End.'
  )
  jargon = _jargon(tmp_path / 'j', _long('hacker') + '\n')
  a, b = tmp_path / 'a.jsonl', tmp_path / 'b.jsonl'
  assert _run(a, jargon, book) == 0
  first, second = _lines(a)
  assert first['source'] == 'Debian anarchism 1.2-3'
  assert first['licence'] == 'GPL-2'
  assert first['name'] == 'anarchism/html/secA.html#0'
  assert second['licence'] == 'public domain'
  assert second['text'] == _long('hacker') + '\n'
  printed = capsys.readouterr().out
  assert hashlib.sha256(a.read_bytes()).hexdigest() in printed
  assert '2 documents' in printed
  # The order of the arguments changes nothing.
  _run(b, book, jargon)
  assert a.read_bytes() == b.read_bytes()


def test_repeated_paragraphs_and_those_of_other_texts_are_left_out(tmp_path):
  same, known = _long('same'), _long('known')
  text = '\n\n'.join([same, _long('new'), same, known, _long('other')])
  brown = tmp_path / 'brown.jsonl'
  brown.write_text(json.dumps({'text': f'Start.\n\n{known}\n'}) + '\n')
  out = tmp_path / 'out.jsonl'
  _run(out, _jargon(tmp_path / 'j', text), f'--without={brown}')
  (row,) = _lines(out)
  assert row['text'].strip().split('\n\n') == [
      same,
      _long('new'),
      _long('other'),
  ]


def test_a_package_has_a_largest_share(tmp_path, monkeypatch):
  monkeypatch.setattr(prose, '_LARGEST', 40_000)
  text = '\n\n'.join(_long(f'word{i}') for i in range(100))
  out = tmp_path / 'out.jsonl'
  _run(out, _jargon(tmp_path / 'j', text))
  rows = _lines(out)
  assert 25_000 < sum(len(row['text']) for row in rows) <= 40_000
  numbers = [int(row['name'].partition('#')[2]) for row in rows]
  assert numbers == sorted(numbers) and numbers != list(range(len(rows)))


def test_faults_are_one_line(tmp_path, capsys):
  out = tmp_path / 'out.jsonl'
  other = _package(tmp_path / 'o', 'unknown-doc', {})
  empty = _package(tmp_path / 'e', 'anarchism', {})
  jargon = _jargon(tmp_path / 'j', _long('x'))
  missing = errors.MissingInputError.exit_code
  assert _run(out) == 2
  assert _run(out, tmp_path / 'none') == missing
  assert _run(out, other) == 2
  assert _run(out, empty) == missing
  assert _run(out, jargon, jargon) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 5
  assert 'unknown-doc' in lines[2] and 'anarchism' in lines[2]
  assert not out.exists()


@pytest.mark.parametrize('text', ['', '{"name": 1}\n', '[1]\n', '{'])
def test_a_foreign_file_without_is_refused(text, tmp_path, capsys):
  path = tmp_path / 'brown.jsonl'
  path.write_text(text)
  folder = _jargon(tmp_path / 'j', _long('x'))
  code = _run(tmp_path / 'out.jsonl', folder, f'--without={path}')
  assert code == (errors.DataError.exit_code if text else 0)
  assert len(capsys.readouterr().err.splitlines()) == bool(text)
