"""Labelled rows: labels of tokens, and disjoint train and test documents."""

import json
import keyword

import numpy as np
import pytest

from jumprelu import data, errors, lm
from jumprelu.data import documents, packing
from jumprelu.evals.measures import config as config_lib
from jumprelu.evals.measures import labelled, python_source

_CODE = '''def name_{0}(value, other):
  """Says what value number {0} is."""
  for item in value:
    if item is not None and item > {0}:
      return other.method(item, "text {0}")  # of {0}


'''


@pytest.fixture(scope='module')
def layout():
  path = lm.find('gemma2_nano').tokenizer_path
  return labelled.Layout(data.Tokenizer(path), 48)


def code(number):
  text = ''.join(_CODE.format(10 * number + i) for i in range(4))
  return documents.Document(f'{number}.py', text)


@pytest.fixture(scope='module')
def python(layout):
  return labelled.of_python(map(code, range(12)), layout, tokens=48 * 30)


def test_a_tokens_label_is_its_first_characters(layout, python):
  keywords = python.labels[..., python_source.PROPERTIES.index('keyword')]
  pieces = {
      layout.tokenizer.piece(int(t)).strip()
      for t in python.tokens[keywords == 1]
  }
  assert {'def', 'for', 'in', 'if', 'is', 'not', 'None', 'return'} <= pieces
  # Pieces of a keyword with two tokens also have the label.
  assert all(any(p in k for k in keyword.kwlist) for p in pieces)
  strings = python.labels[..., python_source.PROPERTIES.index('string')]
  text = layout.tokenizer.decode(python.tokens[strings == 1].tolist())
  assert 'text' in text and 'value' not in text


def test_only_tokens_of_text_are_labelled_and_rows_are_full(python):
  keep = packing.keep_mask(python.tokens)
  np.testing.assert_array_equal((python.labels >= 0).all(-1), keep)
  np.testing.assert_array_equal((python.labels >= 0).any(-1), keep)
  assert len(python.tokens) == 30 and keep.mean() > 0.7


def test_a_document_is_entirely_in_the_train_or_test_set(python):
  for document in np.unique(python.documents):
    assert len(set(python.test[python.documents == document])) == 1
  assert 0 < python.test.mean() < 1


def test_a_prefix_precedes_the_text(layout):
  other = layout._replace(prefix=(7, 8, 9))
  rows = labelled.of_python([code(0)], other, tokens=96)
  assert (rows.tokens[:, :4] == [packing.BOS, 7, 8, 9]).all()
  assert (rows.labels[:, :4] == -1).all() and (rows.labels[:, 4] >= 0).all()


def test_invalid_python_is_refused_by_name(layout):
  bad = documents.Document('bad.py', 'def f(:\n')
  with pytest.raises(errors.DataError, match='bad.py: not Python'):
    labelled.of_python([bad], layout, tokens=96)


def write(path, records):
  path.write_text('\n'.join(map(json.dumps, records)), 'utf-8')
  return config_lib.Probing(data=str(path))


def load(config, layout):
  return list(labelled.load(config, layout, held_out_percent=10))


def test_two_labels_are_one_task_and_more_are_one_task_each(tmp_path, layout):
  texts = [f'text number {i}' for i in range(60)]
  two = [{'text': t, 'label': bool(i % 2)} for i, t in enumerate(texts)]
  more = [{'text': t, 'label': i % 3} for i, t in enumerate(texts)]
  write(tmp_path / 'b.jsonl', more)
  write(tmp_path / 'a.jsonl', [*two, *two])
  a, b = load(config_lib.Probing(data=str(tmp_path)), layout)
  assert (a.name, a.tasks, b.tasks) == ('a', ('True',), ('0', '1', '2'))
  assert a.pooled and a.labels.shape == (120, 1, 1)
  assert (b.labels.sum(-1) == 1).all()
  # A repeated text is entirely in the train or test set.
  assert len(np.unique(a.documents)) == 60
  for document in range(60):
    assert len(set(a.test[a.documents == document])) == 1
  assert 5 < b.test.sum() < 40
  row = layout.tokenizer.decode(b.tokens[0].tolist())
  assert int(row.split()[-1]) % 3 == b.labels[0, 0].argmax()
  few = config_lib.Probing(data=str(tmp_path / 'b.jsonl'), texts=10)
  assert len(load(few, layout)[0].tokens) == 10


@pytest.mark.parametrize(
    'content, error, message',
    [
        ('{"text": "a", "label"', errors.DataError, r'x.jsonl:1: not JSON'),
        ('[' * 100_000, errors.DataError, r'x.jsonl:1: not JSON'),
        ('{"n": ' + '1' * 5000 + '}', errors.DataError, r':1: not JSON'),
        ('{"text": 3, "label": 0}', errors.DataError, r':1: field "text"'),
        ('{"text": "a"}', errors.DataError, r':1: field "label"'),
        ('[1]', errors.DataError, r':1: field "text"'),
        ('{"text": "a", "label": 0}', errors.UserError, 'values, got 1'),
    ],
)
def test_an_error_in_a_file_names_line_and_field(
    tmp_path, layout, content, error, message
):
  (tmp_path / 'x.jsonl').write_text(content)
  with pytest.raises(error, match=message):
    load(config_lib.Probing(data=str(tmp_path / 'x.jsonl')), layout)


def test_missing_files_and_invalid_settings_are_refused(tmp_path, layout):
  with pytest.raises(errors.MissingInputError, match='nowhere: no such'):
    load(config_lib.Probing(data=str(tmp_path / 'nowhere')), layout)
  with pytest.raises(errors.MissingInputError, match='no such'):
    load(config_lib.Probing(data=str(tmp_path)), layout)
  with pytest.raises(
      errors.UserError, match='measure.probing.tokens must be at least 1, got 0'
  ):
    config_lib.Probing(tokens=0)
  with pytest.raises(
      errors.UserError, match='measure.absorption.shots must be .*, got -1'
  ):
    config_lib.Absorption(shots=-1)
