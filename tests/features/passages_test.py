"""Tests of passages and their firings against NumPy, from token ids."""

import numpy as np

from jumprelu.data import packing
from jumprelu.features import passages, reading, segments
from tests.features.conftest import CONFIG
from tests.features.statistics_test import _random_segment


def _texts(folder):
  return reading.read_texts(folder).to_pylist()


def test_passages_are_kept_tokens_of_different_documents(folder, reference):
  texts = _texts(folder)
  keep = packing.keep_mask(reference.tokens)
  assert len({text['document'] for text in texts}) == CONFIG.texts
  length = reference.tokens.shape[1]
  for number, text in enumerate(texts):
    row, column = divmod(text['position'], length)
    row = int(np.flatnonzero(reference.rows == row)[0])
    span = slice(column, column + len(text['tokens']))
    assert text['text'] == number and keep[row, span].all()
    assert text['tokens'] == reference.tokens[row, span].tolist()
    assert set(reference.documents[row, span]) == {text['document']}
    assert text['offset'] == text['position'] - text['document']
    # It starts with the first kept token of its document in the row.
    assert column == 0 or not keep[row, column - 1]


def test_documents_that_fill_a_passage_are_preferred(folder, reference):
  # Runs of kept tokens of one document, by plain Python.
  keep = packing.keep_mask(reference.tokens)
  full = set()
  for row, documents in enumerate(reference.documents):
    count = 0
    for column, document in enumerate(documents):
      same = column and documents[column - 1] == document
      count = (count if same else 0) + 1 if keep[row, column] else 0
      if count == CONFIG.text_length:
        full.add(document)
  texts = _texts(folder)
  filled = [t for t in texts if len(t['tokens']) == CONFIG.text_length]
  assert 0 < len(filled) == min(len(full), CONFIG.texts)
  assert {t['document'] for t in filled} <= full


def test_all_active_latents_of_each_token_are_listed(folder, reference):
  texts = _texts(folder)
  length = reference.tokens.shape[1]
  for path, every in reference.values.items():
    rows = reading.read_text_firings(folder, path).to_pylist()
    wanted = [(t['text'], i) for t in texts for i in range(len(t['tokens']))]
    assert [(r['text'], r['index']) for r in rows] == wanted
    for entry in rows:
      position = texts[entry['text']]['position'] + entry['index']
      row, column = divmod(position, length)
      values = every[int(np.flatnonzero(reference.rows == row)[0]), column]
      assert sorted(entry['latents']) == np.flatnonzero(values).tolist()
      shown = entry['values']
      np.testing.assert_allclose(shown, values[entry['latents']], rtol=1e-4)
      assert shown == sorted(shown, reverse=True)
    assert sum(len(r['latents']) for r in rows) > 20


def test_passages_do_not_depend_on_segments(tmp_path):
  parts = [_random_segment(tmp_path / 'a', i, 6, i) for i in range(4)]
  fields = zip(*(part[1:] for part in parts), strict=True)
  whole = segments.Segment(
      segments.folder_of(tmp_path / 'b', 0),
      *(np.concatenate(field) for field in fields),
  )
  config = CONFIG
  drawn = [passages.draw(p, config=config) for p in (parts, [whole])]
  assert len(set(drawn[0].segment)) > 1
  for name in ('position', 'document', 'length'):
    np.testing.assert_array_equal(
        getattr(drawn[0], name), getattr(drawn[1], name)
    )


def test_a_token_that_is_not_kept_ends_a_passage(tmp_path):
  segment = _random_segment(tmp_path, 0, 2, 0)
  keep = segment.keep.copy()
  keep[:, 4] = False
  keep[1, 5:] = False
  parts = [segment._replace(keep=keep, documents=np.repeat([[0], [32]], 32, 1))]
  drawn = passages.draw(parts, config=CONFIG)
  lengths = zip(drawn.at, drawn.length, strict=True)
  places = dict(zip(drawn.document, lengths, strict=True))
  assert places == {0: (5, CONFIG.text_length), 32: (33, 3)}


def test_a_text_without_kept_tokens_has_no_passage(tmp_path):
  segment = _random_segment(tmp_path, 0, 2, 0)
  empty = segment._replace(keep=np.zeros_like(segment.keep))
  drawn = passages.draw([empty], config=CONFIG)
  assert len(drawn.at) == 0
  path = tmp_path / 'texts.parquet'
  passages.write(drawn, [empty], path=path)
  active = passages.firings(drawn, segments.open_member([empty], 0))
  passages.write_firings(drawn, active, path=path)
  assert active.starts.tolist() == [0]
