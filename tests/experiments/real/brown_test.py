"""`experiments.real.brown` restores readable English from tagged files."""

import hashlib
import json
import tarfile

import pytest

from experiments.real import brown
from jumprelu import errors
from jumprelu.run import main

# Invented, in the shape of the corpus' files.
_NEWS = """

\tThe/at Elm/np-tl County/nn-tl Board/nn-tl met/vbd Monday/nr and/or/cc Tuesday/nr ./.


\t``/`` Nobody/pn objected/vbd ''/'' ,/, Mr./np Roe/np said/vbd ,/, ``/`` did/dod they/ppss ''/'' ?/. ?/.
He/pps left/vbd for/in Boston/np ,/, Mass./np ./.



Budget/nn-hl approved/vbn-hl
The/at vote/nn (/( 5/cd -/- 2/cd )/) came/vbd at/in 9:30/cd p.m./rb ;/. ;/. no/at fee/nn ./.
"""
_SCIENCE = """

\tHold/vb the/at 1/4''/nn ''/'' rod/nn 30/cd mg/nn //in l/nn away/rb ./.
The/at value/nn of/in Af/nn is/bez zero/cd ./.
Call/vb it/ppo '/' small/jj '/' ,/, not/* '/' tiny/jj '/' !/. !/.
The/at angle/nn **zg/nn is/bez right/jj ./.
"""
_NEWS_TEXT = """\
The Elm County Board met Monday and/or Tuesday.

"Nobody objected," Mr. Roe said, "did they?" He left for Boston, Mass.

Budget approved

The vote (5-2) came at 9:30 p.m.; no fee.
"""
_SCIENCE_TEXT = """\
Hold the 1/4" rod 30 mg/l away. Call it 'small,' not 'tiny!'
"""


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'package'
  folder.mkdir()
  # Written in another order than that of their names.
  (folder / 'cj01').write_text(_SCIENCE)
  (folder / 'ca02').write_text(_NEWS)
  for name in ('README', 'cats.txt', 'CONTENTS', 'package.json'):
    (folder / name).write_text('not a tagged file')
  return folder


def _run(*argv):
  return main.run_command(brown, 'brown', [str(arg) for arg in argv])


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_tags_doubles_codes_and_spaces_are_removed(folder, tmp_path, capsys):
  out = tmp_path / 'brown.jsonl'
  assert _run(folder, out) == 0
  first, second = _lines(out)
  assert (first['name'], first['genre']) == ('ca02', 'press: reportage')
  assert (second['name'], second['genre']) == ('cj01', 'learned')
  assert first['text'] == _NEWS_TEXT
  assert second['text'] == _SCIENCE_TEXT
  assert 'redistribution permitted' in first['licence']
  printed = capsys.readouterr().out
  size = len(_NEWS_TEXT) + len(_SCIENCE_TEXT)
  assert f'2 documents, {size} characters' in printed
  assert hashlib.sha256(out.read_bytes()).hexdigest() in printed
  assert 'tokens' not in printed


def test_an_archive_gives_the_bytes_of_its_folder(folder, tmp_path):
  archive = tmp_path / 'corpus.tgz'
  with tarfile.open(archive, 'w:gz') as file:
    file.add(folder, 'package')
  a, b = tmp_path / 'a.jsonl', tmp_path / 'b.jsonl'
  _run(folder, a)
  _run(archive, b)
  assert a.read_bytes() == b.read_bytes()


def test_tokens_are_those_of_the_models_tokenizer(folder, tmp_path, capsys):
  from jumprelu import data, lm

  _run(folder, tmp_path / 'a.jsonl', '--model=gemma2_nano')
  tokenizer = data.Tokenizer(lm.find('gemma2_nano').tokenizer_path)
  tokens = sum(
      len(tokenizer.encode(text)) for text in (_NEWS_TEXT, _SCIENCE_TEXT)
  )
  assert f', {tokens} tokens, ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'words, text',
    [
        ("He/p ''/'' ./.", 'He."'),
        ("``/`` A/a '/' b/b '/' ''/'' ./.", '"A \'b.\'"'),
        ("Mr./n Roe/n ,/, Jr./n ''/'' ./.", 'Mr. Roe, Jr."'),
        ("the/a ``/`` x/n ''/'' ;/. ;/. y/n :/: :/: z/n", 'the "x"; y: z'),
        ('B./n &/c O./n --/-- 2/c ,/, ,/, 5/c', 'B. & O. -- 2, 5'),
        ('a/a -/- b/b 1955/c -/- 57/c', 'a - b 1955-57'),
        ("(/( ``/`` A/a ''/'' )/)", '("A")'),
        ("Don't/d '/' em/e", "Don't 'em"),
    ],
)
def test_marks_are_set_as_in_print(words, text):
  assert brown.untag(words) == f'{text}\n'


def test_faults_are_one_line(folder, tmp_path, capsys):
  out = tmp_path / 'out.jsonl'
  assert _run(tmp_path / 'none', out) == errors.MissingInputError.exit_code
  (tmp_path / 'empty').mkdir()
  assert _run(tmp_path / 'empty', out) == errors.MissingInputError.exit_code
  (tmp_path / 'x.tgz').write_bytes(b'no archive')
  assert _run(tmp_path / 'x.tgz', out) == errors.DataError.exit_code
  (folder / 'cb01').write_text('Untagged words')
  assert _run(folder, out) == errors.DataError.exit_code
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 4 and "cb01: 'Untagged' has no tag" in lines[3]
  assert not out.exists()
