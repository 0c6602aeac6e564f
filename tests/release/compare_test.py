"""Rows of results are read from releases and from files of evaluations."""

import json
import pathlib

import pytest

from jumprelu import errors
from jumprelu.release import compare

FIXTURE = pathlib.Path(__file__).parents[1] / 'fixtures' / 'format_1'
EVALUATION = FIXTURE / 'evaluation.jsonl'


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    'source, file',
    [
        (FIXTURE / 'release', FIXTURE / 'release' / 'results.jsonl'),
        (EVALUATION, EVALUATION),
    ],
)
def test_rows_of_an_older_version_have_their_values(source, file):
  rows = compare.read(source, name='old')
  assert rows == [{'run': 'old', **row} for row in rows_of(file)]
  assert len(rows) == 6


@pytest.mark.parametrize(
    'change, fault',
    [
        ({'site': 'somewhere'}, 'site is none of resid_post'),
        ({'width': '16'}, 'width is missing or of the wrong type'),
        ({'model': None}, 'model is missing or of the wrong type'),
        ({'fvu': 'low'}, 'fvu is not a number'),
        ({'site': ['resid_post']}, 'site is none of resid_post'),
        ({'lm_dtype': ['a']}, 'lm_dtype is not a text'),
        ({'loss_clean': [1.0]}, 'loss_clean is not a number'),
        ({'loss_clean': 10**400}, 'loss_clean is larger'),
    ],
)
def test_a_row_that_cannot_be_drawn_is_named(tmp_path, change, fault):
  rows = rows_of(EVALUATION)
  rows[1] |= change
  path = tmp_path / 'x.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  with pytest.raises(errors.DataError, match=f'x.jsonl: line 2: {fault}'):
    compare.read(path)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'empty'),
        (b'[1]\n', 'line 1: not a JSON object'),
        (b'{"a"\n', 'line 1: '),
        (b'\xff\n', 'not text'),
        (b'{}\n', 'line 1: model is missing'),
    ],
)
def test_files_without_rows_of_results_are_refused(tmp_path, content, message):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match=message):
    compare.read(path)


def test_other_files_and_folders_are_refused(tmp_path):
  with pytest.raises(errors.MissingInputError, match='no such file'):
    compare.read(tmp_path / 'x.jsonl')
  with pytest.raises(errors.MissingInputError, match='results.jsonl: no such'):
    compare.read(tmp_path)
  with pytest.raises(errors.UserError, match='pass the .jsonl file'):
    compare.read(FIXTURE / 'release' / 'results.parquet')
  with pytest.raises(errors.UserError, match='a run, not a release'):
    compare.read(FIXTURE / 'run')
