"""An interrupted writer writes the same bytes as an uninterrupted one."""

import json

import numpy as np
import pytest

from jumprelu.data import cache_writer, packing
from jumprelu.data.cache import TokenCache
from jumprelu.data.cache_writer import Encoded
from jumprelu.errors import DataError


def _make_documents():
  rng = np.random.default_rng(0)
  lengths = rng.integers(0, 40, 60)
  return [
      Encoded(
          bool(rng.random() < 0.3), rng.integers(4, 900, n).tolist(), int(n)
      )
      for n in lengths
  ]


DOCUMENTS = _make_documents()


def _write(directory, read=lambda skip: iter(DOCUMENTS[skip:]), **options):
  options = {'rows_per_shard': 10, 'record': {'who': 'test'}} | options
  cache_writer.write_caches(
      directory, read, sequence_length=9, vocab_size=1000, **options
  )


def _files(directory):
  return {
      p.relative_to(directory).as_posix(): p.read_bytes()
      for p in directory.rglob('*')
      if p.is_file()
  }


class _Killed(Exception):
  pass


def _stopping(after, calls):
  def read(skip):
    calls.append(skip)
    for i, document in enumerate(DOCUMENTS):
      if i == after:
        raise _Killed
      if i >= skip:
        yield document

  return read


def test_both_caches_hold_exactly_their_documents(tmp_path):
  _write(tmp_path)
  for split in ('train', 'held_out'):
    held_out = split == 'held_out'
    expected = list(
        packing.pack([d.tokens for d in DOCUMENTS if d.held_out == held_out], 9)
    )
    cache = TokenCache(tmp_path / split)
    np.testing.assert_array_equal(cache.tokens_at(range(len(cache))), expected)


def test_the_manifest_counts_and_records(tmp_path):
  _write(tmp_path)
  manifest = TokenCache(tmp_path / 'held_out').manifest
  held_out = [d for d in DOCUMENTS if d.held_out]
  assert manifest['split'] == 'held_out'
  assert manifest['who'] == 'test'
  assert manifest['complete'] is True
  assert manifest['documents'] == len(held_out)
  assert manifest['tokens'] == sum(len(d.tokens) for d in held_out)
  assert manifest['text_bytes'] == sum(d.text_bytes for d in held_out)
  assert manifest['dtype'] == 'uint16'


@pytest.mark.parametrize('stops', [[0], [7], [33], [59], [20, 30, 45]])
def test_an_interrupted_writer_equals_an_uninterrupted_one(tmp_path, stops):
  _write(tmp_path / 'through')
  calls = []
  for stop in stops:
    with pytest.raises(_Killed):
      _write(tmp_path / 'stopped', _stopping(stop, calls))
    with pytest.raises(DataError, match='incomplete'):
      TokenCache(tmp_path / 'stopped' / 'train')
  _write(tmp_path / 'stopped', _stopping(len(DOCUMENTS), calls))
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')
  if stops[-1] > 30:
    assert calls[-1] > 15  # The last call resumed instead of starting again.


def test_a_half_written_shard_is_written_again(tmp_path):
  _write(tmp_path / 'through')
  with pytest.raises(_Killed):
    _write(tmp_path / 'stopped', _stopping(33, []))
  progress = json.loads((tmp_path / 'stopped' / 'progress.json').read_text())
  name = f'tokens-{len(progress["train"]["shards"]):05d}.array_record'
  (tmp_path / 'stopped' / 'train' / name).write_bytes(b'half of a shard')
  _write(tmp_path / 'stopped')
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')


def test_a_damaged_progress_file_starts_again(tmp_path):
  _write(tmp_path / 'through')
  with pytest.raises(_Killed):
    _write(tmp_path / 'stopped', _stopping(33, []))
  (tmp_path / 'stopped' / 'progress.json').write_text('{"documents": 3')
  calls = []
  _write(tmp_path / 'stopped', _stopping(len(DOCUMENTS), calls))
  assert calls == [0]
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')


@pytest.mark.parametrize(
    'change', [{'documents': 3}, {'train': {}}, {'held_out': None}]
)
def test_changed_progress_is_not_used(tmp_path, change):
  _write(tmp_path / 'through')
  with pytest.raises(_Killed):
    _write(tmp_path / 'stopped', _stopping(33, []))
  path = tmp_path / 'stopped' / 'progress.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  _write(tmp_path / 'stopped')
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')


def test_the_manifest_is_written_after_every_shard(tmp_path, monkeypatch):
  seen = []
  write_json = cache_writer.json_files.write_json

  def spy(path, value, **options):
    if path.name == 'manifest.json':
      held = {p.name for p in path.parent.glob('*.array_record')}
      seen.append({s['file'] for s in value['shards']} <= held)
    write_json(path, value, **options)

  monkeypatch.setattr(cache_writer.json_files, 'write_json', spy)
  _write(tmp_path)
  assert seen == [True, True]


def test_max_tokens_stops_after_the_document_that_reaches_it(tmp_path):
  lengths = np.cumsum([len(d.tokens) for d in DOCUMENTS])
  _write(tmp_path, max_tokens=300)
  manifests = [TokenCache(tmp_path / s).manifest for s in ('train', 'held_out')]
  expected = int(np.argmax(lengths >= 300))
  assert sum(m['documents'] for m in manifests) == expected + 1
  assert sum(m['tokens'] for m in manifests) == lengths[expected]


def test_max_tokens_holds_across_an_interruption(tmp_path):
  _write(tmp_path / 'through', max_tokens=700)
  with pytest.raises(_Killed):
    _write(tmp_path / 'stopped', _stopping(25, []), max_tokens=700)
  _write(tmp_path / 'stopped', max_tokens=700)
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')


def test_a_split_without_documents_is_an_empty_cache(tmp_path):
  train = [d for d in DOCUMENTS if not d.held_out]
  _write(tmp_path, lambda skip: iter(train[skip:]))
  assert len(TokenCache(tmp_path / 'held_out')) == 0


@pytest.mark.parametrize(
    'change',
    [
        lambda progress: progress.update(documents=progress['documents'] - 1),
        lambda progress: progress.update(documents='15'),
        lambda progress: progress['train'].update(open_row=[2, 7]),
        lambda progress: progress['train'].pop('shards'),
        lambda progress: progress.pop('sha256', None) or progress.clear(),
    ],
)
def test_a_changed_progress_file_starts_again(tmp_path, change):
  _write(tmp_path / 'through')
  with pytest.raises(_Killed):
    _write(tmp_path / 'stopped', _stopping(33, []))
  path = tmp_path / 'stopped' / 'progress.json'
  progress = json.loads(path.read_text())
  change(progress)
  path.write_text(json.dumps(progress))
  calls = []
  _write(tmp_path / 'stopped', _stopping(len(DOCUMENTS), calls))
  assert calls == [0]
  assert _files(tmp_path / 'stopped') == _files(tmp_path / 'through')
