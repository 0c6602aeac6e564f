"""Text -> the two caches of a corpus, which are written once.

The name of their directory includes a digest of the text, the tokenizer and the
config. Two processes may prepare the same corpus at the same time. The first to
get the lock writes into a temporary directory and renames it when both caches
are complete; the second waits for the lock and uses the first one's caches.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import re
import sys
import time
from typing import Any

from jumprelu.data import (
    bad_rows,
    cache_writer,
    file_list,
    packing,
    sources,
    token_files,
)
from jumprelu.data.cache import FORMAT, TokenCache
from jumprelu.data.cache_writer import Encoded
from jumprelu.data.config import Config
from jumprelu.data.documents import Document, Source, Split
from jumprelu.data.tokenizer import Tokenizer
from jumprelu.errors import DataError, UserError
from jumprelu.files import cache_folder, disk, locks

# Limits of a batch of documents, which all cores tokenise together.
_BATCH_DOCUMENTS = 64
_BATCH_CHARACTERS = 2**20
_PROGRESS_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Prepared:
  """The two caches of a corpus and a record of their contents."""

  train: TokenCache
  held_out: TokenCache
  description: dict[str, Any]


class _Progress:
  """A progress line on stderr every ten seconds.

  `total` is the number of bytes of text, or 0 if it is unknown. If it is known,
  the line also has the percentage done and the time left.
  """

  def __init__(
      self,
      name: str,
      total: int,
      *,
      write: Callable[[str], None] | None = None,
  ):
    self._name = name
    self._total = total
    self._write = write or _print
    self._start = self._last = time.monotonic()
    self._done = 0

  def add(self, size: int) -> None:
    self._done += size
    now = time.monotonic()
    if now - self._last < _PROGRESS_SECONDS:
      return
    self._last = now
    line = f'tokenising {self._name}: {self._done / 1e6:.0f} MB of text'
    if self._total > self._done:
      left = (now - self._start) * (self._total / self._done - 1)
      share = 100 * self._done / self._total
      line += f', {share:.0f} %, {left:.0f} s left'
    self._write(line)


def _print(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
  batch = []
  characters = 0
  for document in documents:
    batch.append(document)
    characters += len(document.text)
    if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
      yield batch
      batch = []
      characters = 0
  if batch:
    yield batch


def _text_bytes(document: Document) -> int:
  try:
    return len(document.text.encode())
  except UnicodeEncodeError as e:
    raise UserError(
        f'{document.name}: half a character (lone surrogate) at index'
        f' {e.start}; remove it'
    ) from None


def _encode(
    source: Source,
    skip: int,
    *,
    tokenizer: Tokenizer,
    split: Split,
    write: Callable[[str], None] | None = None,
) -> Iterator[Encoded]:
  """Yields the tokens of all documents of a source except the first `skip`."""
  progress = _Progress(source.name, source.size(), write=write)
  documents = source.documents()
  try:
    for document in itertools.islice(documents, skip):
      progress.add(_text_bytes(document))
    for batch in _batches(documents):
      sizes = [_text_bytes(d) for d in batch]
      tokens = tokenizer.encode_batch([d.text for d in batch])
      for document, ids, size in zip(batch, tokens, sizes, strict=True):
        yield Encoded(split.holds_out(source.split_key(document)), ids, size)
      progress.add(sum(sizes))
  finally:  # Also if the reader stops early, at `max_tokens`.
    if isinstance(source, bad_rows.HasBadRows) and source.bad_rows.skipped:
      (write or _print)(f'{source.name}: {source.bad_rows}')


def make_wrap(tokenizer: Tokenizer, config: Config) -> packing.Wrap:
  """Returns the tokens that `--corpus.wrap` adds around a piece of a document.

  The chat format is that of Gemma Scope for the instruction-tuned 9B (arXiv
  2408.05147): the text is the user's turn, and the start of the model's turn
  follows.
  """
  if config.wrap == 'none':
    return packing.PLAIN
  start, end = packing.TURN_PIECES
  return packing.Wrap(
      prefix=tokenizer.encode_pieces(start, 'user', '\n'),
      suffix=tokenizer.encode_pieces(end, '\n', start, 'model', '\n'),
      eos=False,
  )


def _wrap_record(wrap: packing.Wrap) -> dict[str, Any]:
  """Returns the fields of a manifest that describe a wrap; {} for none."""
  if wrap == packing.PLAIN:
    return {}
  return {'user_prefix': list(wrap.prefix), 'turn_suffix': list(wrap.suffix)}


def _notice(source: Any) -> str:
  """Returns a text about files that are left out; '' for none."""
  if isinstance(source, token_files.TokenFiles):
    return source.notice()
  return file_list.describe(getattr(source, 'left_out', {}))


def _skipped(source: Any) -> dict[str, Any]:
  """Returns the field of a manifest with the rows skipped; {} for none."""
  if not isinstance(source, bad_rows.HasBadRows):
    return {}
  rows = source.bad_rows
  # Checks the last file too, which is not read to its end with `max_tokens`.
  rows.end_file(source.name)
  return {'skipped_rows': rows.skipped} if rows.skipped else {}


def _directory(
    name: str, record: dict[str, Any], config: Config
) -> pathlib.Path:
  """Returns the directory of the two caches that `record` describes."""
  key = {
      'format': FORMAT,
      'sequence_length': config.sequence_length,
      **record,
  }
  digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
  slug = re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[:40]
  return cache_folder.of(config.cache_dir) / f'{slug or "text"}-{digest[:16]}'


def _write(
    directory: pathlib.Path, read, config, tokenizer, *, record, source
) -> None:
  """Writes both caches to a temporary directory; renames it to `directory`."""
  lock = directory.with_name(directory.name + '.lock')

  def announce_wait() -> None:
    print(
        f'{lock.stem}: another process is preparing this corpus; waiting',
        file=sys.stderr,
        flush=True,
    )

  cure = 'set --corpus.cache_dir or JUMPRELU_CACHE'
  where = str(lock.parent)
  with locks.hold(lock, where=where, on_busy=announce_wait, cure=cure):
    if directory.exists():
      return  # Another process wrote it while this one waited for the lock.
    partial = directory.with_name(directory.name + '.partial')
    partial.mkdir(exist_ok=True)
    disk.require(
        partial,
        sources.least_bytes(source, config, vocab_size=tokenizer.vocab_size)
        - sum(p.stat().st_size for p in partial.rglob('*') if p.is_file()),
        what=f'the token cache of {source.name}',
        cure=cure,
    )
    cache_writer.write_caches(
        partial,
        read,
        sequence_length=config.sequence_length,
        vocab_size=tokenizer.vocab_size,
        record=record,
        max_tokens=config.max_tokens,
        wrap=make_wrap(tokenizer, config),
        late=functools.partial(_skipped, source),
    )
    partial.rename(directory)


# The fields of a manifest that `open_prepared` reads, besides those that every
# cache has.
_DESCRIBED = (
    'source',
    'tokenizer_sha256',
    'held_out_percent',
    'max_tokens',
    'documents',
    'tokens',
    'text_bytes',
)


def open_prepared(directory: pathlib.Path) -> Prepared:
  """Opens the two caches that `prepare` wrote into a directory.

  Raises:
    MissingInputError: if a cache is missing.
    DataError: if a cache is damaged or the two were swapped.
  """
  train = TokenCache(directory / 'train')
  held_out = TokenCache(directory / 'held_out')
  for cache, split in ((train, 'train'), (held_out, 'held_out')):
    for name in _DESCRIBED:
      if name not in cache.manifest:
        raise DataError(
            f'{cache.directory}: the manifest has no field {name!r}; prepare the'
            ' text again'
        )
    if cache.manifest['split'] != split:
      raise DataError(
          f'{cache.directory}: the manifest is of split'
          f' {cache.manifest["split"]!r}; if the folders train and held_out'
          ' were swapped, swap them again'
      )
  description = {
      'source': train.manifest['source'],
      'tokenizer_sha256': train.manifest['tokenizer_sha256'],
      'sequence_length': train.sequence_length,
      'held_out_percent': train.manifest['held_out_percent'],
      'max_tokens': train.manifest['max_tokens'],
  }
  if 'skipped_rows' in train.manifest:
    description['skipped_rows'] = train.manifest['skipped_rows']
  for cache, split in ((train, 'train'), (held_out, 'held_out')):
    names = ('digest', 'documents', 'tokens', 'text_bytes')
    description[split] = {n: cache.manifest[n] for n in names}
    description[split]['sequences'] = len(cache)
  return Prepared(train, held_out, description)


def _check(prepared: Prepared, spec: str, *, tokenizer, config) -> Prepared:
  """Returns `prepared`; raises a UserError unless both caches can be used."""
  for cache in (prepared.train, prepared.held_out):
    sha256 = cache.manifest.get('tokenizer_sha256')
    if sha256 != tokenizer.sha256:
      raise UserError(
          f'{cache.directory}: made by tokenizer {str(sha256)[:12]}, the'
          f" model's is {tokenizer.sha256[:12]}; prepare it for this model"
      )
    if cache.sequence_length != config.sequence_length:
      raise UserError(
          f'{cache.directory}: rows of {cache.sequence_length} tokens; set'
          f' --corpus.sequence_length={cache.sequence_length}'
      )
    if cache.user_prefix != make_wrap(tokenizer, config).prefix:
      other = 'none' if config.wrap == 'chat' else 'chat'
      raise UserError(
          f'{cache.directory}: its documents are wrapped differently; set'
          f' --corpus.wrap={other}, or prepare it again'
      )
    if not len(cache):
      cure = 'use more text, in several files or lines'
      if config.max_tokens:
        cure = f'raise --corpus.max_tokens={config.max_tokens}'
      raise UserError(
          f'--data={spec}: too few documents to hold some out'
          f' ({cache.manifest["split"]} is empty); {cure}'
      )
  return prepared


def prepare(
    spec: str,
    tokenizer: Tokenizer,
    config: Config,
    *,
    on_phase: Callable[[str], None] | None = None,
) -> Prepared:
  """Returns the train and held-out caches of the corpus that `spec` names.

  The first call writes the caches, later calls open them. `spec` is any name
  that `sources.make_source` accepts, or `tokens:DIR` for text that is already
  tokenised. A DIR with a folder `train` is opened as caches that `prepare`
  wrote; any other DIR is read as `token_files`.

  Args:
    spec: The name of the corpus.
    tokenizer: The tokenizer of the language model.
    config: The config of the corpus.
    on_phase: Called with a line of text when reading and tokenising start, and
      with progress and notices, which are printed by default.

  Raises:
    UserError: `spec` is invalid, or a cache is empty or does not fit the
      tokenizer or the config.
    MissingInputError, DataError: if files are missing or damaged.
  """
  announce = on_phase or (lambda line: None)
  if spec.startswith('tokens:'):
    folder = pathlib.Path(spec.removeprefix('tokens:')).expanduser()
    announce(f'reading token ids: {folder}')
    if (folder / 'train').is_dir():
      prepared = open_prepared(folder)
      return _check(prepared, spec, tokenizer=tokenizer, config=config)
    source = token_files.TokenFiles(folder, vocab_size=tokenizer.vocab_size)
    split = Split(config.held_out_percent)
    read = functools.partial(source.encoded, split)
  else:
    source = sources.make_source(spec, config)
    announce(f'reading text: {source.summary()}')
    split = sources.make_split(source, config.held_out_percent)
    read = functools.partial(
        _encode, source, tokenizer=tokenizer, split=split, write=on_phase
    )
  if notice := _notice(source):
    (on_phase or _print)(f'{source.name}: {notice}')
  record = {
      'source': source.describe(),
      'tokenizer_sha256': tokenizer.sha256,
      'held_out_percent': config.held_out_percent,
      'held_out_always': split.always,
      'max_tokens': config.max_tokens,
      **_wrap_record(make_wrap(tokenizer, config)),
  }
  directory = _directory(source.name, record, config)
  if not directory.exists():
    announce(f'tokenising {source.name}, once: kept in {directory}')
    _write(directory, read, config, tokenizer, record=record, source=source)
  return _check(
      open_prepared(directory), spec, tokenizer=tokenizer, config=config
  )


def held_out_documents(source: Source, percent: int) -> Iterator[Document]:
  """Yields the held-out documents of the whole source, as text.

  `prepare` holds out the same documents, up to `max_tokens`.
  """
  split = sources.make_split(source, percent)
  for document in source.documents():
    if split.holds_out(source.split_key(document)):
      yield document
