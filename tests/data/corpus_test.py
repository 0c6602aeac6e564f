"""The two caches of a corpus are disjoint, complete and written once."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from jumprelu import data
from jumprelu.data import cache_writer, corpus, sources, text_files
from jumprelu.errors import DataError, UserError


def _texts_of(cache, tokenizer):
  """Returns the documents of a cache, reassembled from its rows."""
  documents = []
  open_document = []
  for row in cache.tokens_at(range(len(cache))).tolist():
    for token in row:
      if token == 1:
        documents.append(tokenizer.decode(open_document))
        open_document = []
      elif token > 2:
        open_document.append(token)
  assert not open_document
  return documents


def test_every_document_is_in_exactly_one_of_the_caches(
    fixtures, texts, tokenizer, config
):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  train = _texts_of(prepared.train, tokenizer)
  held_out = _texts_of(prepared.held_out, tokenizer)
  assert train and held_out
  assert sorted(train + held_out) == sorted(texts.values())


def test_copies_of_a_document_are_in_the_same_split(
    tokenizer, config, tmp_path
):
  lines = [f'Sentence number {i} stands alone.' for i in range(40)]
  records = [{'text': t} for n in range(3) for t in lines]
  records += [{'text': f'\n{t}  '} for t in lines]
  path = tmp_path / 'copies.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  prepared = data.prepare(str(path), tokenizer, config)
  train = {t.strip() for t in _texts_of(prepared.train, tokenizer)}
  held_out = {t.strip() for t in _texts_of(prepared.held_out, tokenizer)}
  assert train and held_out and not train & held_out
  assert train | held_out == set(lines)


def test_the_description_has_the_counts_of_the_corpus(
    fixtures, texts, tokenizer, config
):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  description = prepared.description
  parts = (description['train'], description['held_out'])
  assert sum(p['documents'] for p in parts) == len(texts)
  size = sum(len(t.encode()) for t in texts.values())
  assert sum(p['text_bytes'] for p in parts) == size
  tokens = sum(len(tokenizer.encode(t)) for t in texts.values())
  assert sum(p['tokens'] for p in parts) == tokens
  assert description['tokenizer_sha256'] == tokenizer.sha256
  assert description['source']['kind'] == 'files'
  assert json.loads(json.dumps(description)) == description


def test_held_out_documents_equal_those_of_the_cache(
    fixtures, tokenizer, config
):
  spec = str(fixtures / 'corpus')
  prepared = data.prepare(spec, tokenizer, config)
  source = sources.make_source(spec, config)
  documents = data.held_out_documents(source, config.held_out_percent)
  assert [d.text for d in documents] == _texts_of(prepared.held_out, tokenizer)


def test_the_second_call_reads_the_cache_only(
    fixtures, tokenizer, config, monkeypatch
):
  first = data.prepare(str(fixtures / 'corpus'), tokenizer, config)

  def fail(*unused_args, **unused_kwargs):
    raise AssertionError('written again')

  monkeypatch.setattr(cache_writer, 'write_caches', fail)
  second = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  assert second.description == first.description


def test_reading_and_tokenising_are_announced_before_they_start(
    fixtures, tokenizer, config, monkeypatch
):
  events = []
  describe, write = text_files.TextFiles.describe, cache_writer.write_caches

  def recorded(name, function):
    def call(*args, **kwargs):
      events.append(name)
      return function(*args, **kwargs)

    return call

  monkeypatch.setattr(
      text_files.TextFiles, 'describe', recorded('read', describe)
  )
  monkeypatch.setattr(cache_writer, 'write_caches', recorded('written', write))
  spec = str(fixtures / 'corpus')
  prepared = data.prepare(spec, tokenizer, config, on_phase=events.append)
  files = [p for p in (fixtures / 'corpus').rglob('*') if p.is_file()]
  size = sum(p.stat().st_size for p in files)
  assert events == [
      f'reading text: corpus, {len(files)} files, {size / 1e6:,.1f} MB',
      'read',
      'tokenising corpus, once: kept in' f' {prepared.train.directory.parent}',
      'written',
  ]
  events.clear()
  data.prepare(spec, tokenizer, config, on_phase=events.append)
  assert events[1:] == ['read']  # The tokens are in the cache.


def test_progress_of_tokenising_is_printed_or_passed_on(
    fixtures, tokenizer, config, monkeypatch, capsys
):
  monkeypatch.setattr(corpus, '_PROGRESS_SECONDS', 0.0)
  spec, lines = str(fixtures / 'corpus'), []
  data.prepare(spec, tokenizer, config, on_phase=lines.append)
  assert any(line.startswith('tokenising corpus: ') for line in lines)
  assert capsys.readouterr().err == ''
  longer = dataclasses.replace(config, sequence_length=64)
  data.prepare(spec, tokenizer, longer)
  assert 'tokenising corpus: ' in capsys.readouterr().err


def test_whatever_changes_the_rows_changes_the_directory(
    fixtures, tokenizer, config, tmp_path, texts
):
  shutil.copytree(fixtures / 'corpus', tmp_path / 'corpus')
  other_tokenizer = data.train_tokenizer(
      texts.values(), tmp_path / 'other.model', 400
  )

  def directory(tokenizer=tokenizer, **changes):
    changed = dataclasses.replace(config, **changes)
    spec = str(tmp_path / 'corpus')
    return data.prepare(spec, tokenizer, changed).train.directory

  first = directory()
  assert directory(seed=7) == first
  directories = [
      first,
      directory(sequence_length=17),
      directory(held_out_percent=40),
      directory(max_tokens=1600),
      directory(other_tokenizer),
  ]
  (tmp_path / 'corpus' / 'notes' / 'rain.txt').write_text('No rain today.')
  directories.append(directory())
  assert len(set(directories)) == 6


def test_a_stopped_preparation_is_finished_by_the_next(
    fixtures, tokenizer, config, monkeypatch, tmp_path
):
  spec = str(fixtures / 'corpus')
  elsewhere = dataclasses.replace(config, cache_dir=str(tmp_path / 'through'))
  through = data.prepare(spec, tokenizer, elsewhere)
  write_caches = cache_writer.write_caches

  def stop(directory, read, **options):
    def half(skip):
      for i, document in enumerate(read(skip)):
        if i == 4:
          raise KeyboardInterrupt
        yield document

    write_caches(directory, half, rows_per_shard=5, **options)

  with monkeypatch.context() as patch:
    patch.setattr(cache_writer, 'write_caches', stop)
    with pytest.raises(KeyboardInterrupt):
      data.prepare(spec, tokenizer, config)
  (partial,) = pathlib.Path(config.cache_dir).glob('*.partial')
  assert (partial / 'progress.json').is_file()
  prepared = data.prepare(spec, tokenizer, config)
  assert not partial.exists()
  for split in ('train', 'held_out'):
    resumed, whole = getattr(prepared, split), getattr(through, split)
    rows = range(len(whole))
    assert resumed.tokens_at(rows).tolist() == whole.tokens_at(rows).tolist()


def test_a_damaged_cache_is_named_not_repaired_silently(
    fixtures, tokenizer, config
):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  (shard,) = prepared.train.directory.glob('*.array_record')
  shard.write_bytes(shard.read_bytes()[:-100])
  with pytest.raises(DataError, match=shard.name):
    data.prepare(str(fixtures / 'corpus'), tokenizer, config)


_PREPARE = """
import sys
from jumprelu import data
spec, model, cache_dir = sys.argv[1:]
config = data.Config(
    sequence_length=16, held_out_percent=30, cache_dir=cache_dir
)
prepared = data.prepare(spec, data.Tokenizer(model), config)
print(prepared.train.digest, prepared.held_out.digest)
assert 'tensorflow' not in sys.modules
assert 'pyarrow' not in sys.modules
"""


def test_two_processes_may_prepare_the_same_corpus_at_once(
    fixtures, tokenizer, config
):
  arguments = [str(fixtures / 'corpus'), tokenizer.path, config.cache_dir]
  processes = [
      subprocess.Popen(
          [sys.executable, '-c', _PREPARE, *arguments],
          stdout=subprocess.PIPE,
          text=True,
      )
      for _ in range(2)
  ]
  lines = [p.communicate(timeout=120)[0].strip() for p in processes]
  assert [p.returncode for p in processes] == [0, 0]
  prepared = data.prepare(arguments[0], tokenizer, config)
  expected = f'{prepared.train.digest} {prepared.held_out.digest}'
  assert lines == [expected, expected]
  names = [p.name for p in pathlib.Path(config.cache_dir).iterdir()]
  assert len(names) == 2 and not [n for n in names if n.endswith('.partial')]


def test_the_second_process_waits_and_writes_nothing(
    fixtures, tokenizer, config, monkeypatch
):
  spec = str(fixtures / 'corpus')
  first = data.prepare(spec, tokenizer, config)
  directory = first.train.directory.parent
  aside = directory.with_name('aside')
  directory.rename(aside)
  flock = corpus.locks.fcntl.flock

  def other_finishes(file, operation):
    if aside.exists():
      aside.rename(directory)
    flock(file, operation)

  monkeypatch.setattr(corpus.locks.fcntl, 'flock', other_finishes)
  monkeypatch.setattr(cache_writer, 'write_caches', None)
  second = data.prepare(spec, tokenizer, config)
  assert second.description == first.description


def test_prepared_caches_can_be_moved(fixtures, tokenizer, config, tmp_path):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  prepared.train.directory.parent.rename(tmp_path / 'moved')
  moved = data.prepare(f'tokens:{tmp_path / "moved"}', tokenizer, config)
  assert moved.description == prepared.description
  assert len(moved.train.tokens_at(range(3))) == 3


def test_moved_caches_must_fit_the_model_and_the_length(
    fixtures, tokenizer, config, tmp_path, texts
):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  spec = f'tokens:{prepared.train.directory.parent}'
  other_length = dataclasses.replace(config, sequence_length=32)
  with pytest.raises(UserError, match='sequence_length=16'):
    data.prepare(spec, tokenizer, other_length)
  other = data.train_tokenizer(texts.values(), tmp_path / 'b.model', 400)
  with pytest.raises(UserError, match='made by tokenizer'):
    data.prepare(spec, other, config)


def test_swapped_caches_are_refused(fixtures, tokenizer, config):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  root = prepared.train.directory.parent
  (root / 'train').rename(root / 'x')
  (root / 'held_out').rename(root / 'train')
  (root / 'x').rename(root / 'held_out')
  with pytest.raises(DataError, match='swapped'):
    data.prepare(f'tokens:{root}', tokenizer, config)


@pytest.mark.parametrize('field', ['source', 'held_out_percent', 'text_bytes'])
def test_a_manifest_without_a_field_is_named(
    fixtures, tokenizer, config, field
):
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, config)
  root = prepared.train.directory.parent
  path = root / 'train' / 'manifest.json'
  manifest = json.loads(path.read_text())
  del manifest[field], manifest['sha256_of_fields']
  path.write_text(json.dumps(manifest))
  with pytest.raises(DataError, match=f"train: .* no field '{field}'"):
    data.prepare(f'tokens:{root}', tokenizer, config)


def test_the_cache_directory_can_be_set_by_the_environment(
    fixtures, tokenizer, config, tmp_path, monkeypatch
):
  monkeypatch.setenv('JUMPRELU_CACHE', str(tmp_path / 'from_environment'))
  default = dataclasses.replace(config, cache_dir='')
  prepared = data.prepare(str(fixtures / 'corpus'), tokenizer, default)
  assert tmp_path / 'from_environment' in prepared.train.directory.parents


def test_a_progress_line_has_the_share_done_and_the_time_left(
    monkeypatch, capsys
):
  clock = iter([0.0, 4.0, 12.0, 13.0])
  monkeypatch.setattr(corpus.time, 'monotonic', lambda: next(clock))
  progress = corpus._Progress('stories', 8_000_000)
  for _ in range(3):
    progress.add(1_000_000)
  # 2 of 8 MB in 12 s: 6 MB are left, 36 s.
  expected = 'tokenising stories: 2 MB of text, 25 %, 36 s left\n'
  assert capsys.readouterr().err == expected
