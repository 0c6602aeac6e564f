"""The JSON records of a store: its blocks, its progress and its manifest."""

from collections.abc import Iterable, Mapping, Sequence
import hashlib
import json
import pathlib
from typing import Any
import zlib

from jumprelu import errors, lm
from jumprelu.activations.store import arrays
from jumprelu.activations.store.geometry import Geometry
from jumprelu.files import dotted, formats, json_files

MANIFEST = 'manifest.json'
PROGRESS = 'progress.json'
BLOCKS = 'blocks.jsonl'

# Fields of a config that determine the rows of its stream. A name that ends in
# a dot is a whole part of the config, except for its fields in `_SOFT`.
_HARD = (
    'model',
    'data',
    'input_gain',
    'matmul_precision',
    'stream.',
    'corpus.',
)
_SOFT = (
    # A block's rows and their order do not depend on the batches that it is
    # divided into.
    'stream.batch',
    'stream.lm_sequences',
    'stream.batches_per_dispatch',
    'corpus.cache_dir',
    'corpus.data_dir',
)
# Fields that records of earlier versions lack, with the values of their rows.
_ADDED = {
    'corpus.max_bad_rows': 0.0,
    'stream.center': False,
    'stream.max_norm': 0.0,
}

# Fields that only the manifest of a complete store has.
_TOTALS = ('complete', 'rows', 'kept', 'dropped', 'blocks_sha256')


def identity(config: dotted.Dataclass, *, dtype: str) -> dict[str, Any]:
  """Returns the fields of a config that determine the rows of its stream.

  Args:
    config: The config of a training run.
    dtype: The dtype of the language model, for which the config may have
      'auto'.
  """
  fields = {
      path: leaf.value
      for path, leaf in dotted.leaves(config).items()
      if dotted.is_among(path, _HARD) and not dotted.is_among(path, _SOFT)
  }
  return fields | {'lm_dtype': dtype}


def stored_identity(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the `identity` in a store's record.

  Records of earlier versions also have fields that determine no row, and lack
  the fields of later options.
  """
  stored = {k: v for k, v in facts['identity'].items() if k not in _SOFT}
  return {**_ADDED, **stored}


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
  """Returns a text for each field that differs between two records."""
  return [
      f'{name} was {stored.get(name)!r}, is {wanted.get(name)!r}'
      for name in sorted(stored.keys() | wanted.keys())
      if stored.get(name) != wanted.get(name)
  ]


def write(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a record as JSON with sorted keys."""
  json_files.write_json(path, value, indent=1, sort_keys=True)


def read_progress(directory: pathlib.Path) -> dict[str, Any]:
  """Returns the content of progress.json, or {} if it does not exist."""
  path = directory / PROGRESS
  progress = json_files.read_json(path, cure=arrays.CURE, missing_ok=True)
  return progress and formats.migrate(
      formats.Kind.STORE, progress, where=str(path)
  )


def append_block(directory: pathlib.Path, block: Mapping[str, Any]) -> None:
  """Appends the record of a block; its rows must be on the disk already."""
  json_files.append_line(
      directory / BLOCKS, block, sort_keys=True, durable=True
  )


def read_blocks(directory: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of all blocks, without an unfinished last line."""
  path = directory / BLOCKS
  if not path.exists():
    return []
  return json_files.read_lines(path, skip_unfinished=True)


def drop_unfinished_line(directory: pathlib.Path) -> int:
  """Removes an unfinished last line; returns the number of the other lines."""
  blocks = read_blocks(directory)
  lines = [json.dumps(block, sort_keys=True) + '\n' for block in blocks]
  json_files.write_text(directory / BLOCKS, ''.join(lines))
  return len(blocks)


def finish(directory: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes manifest.json and removes progress.json."""
  blocks = read_blocks(directory)
  totals = (
      True,
      *(sum(x[name] for x in blocks) for name in ('rows', 'kept', 'dropped')),
      _sha256(directory / BLOCKS),
  )
  manifest = {**record, **dict(zip(_TOTALS, totals, strict=True))}
  write(directory / MANIFEST, manifest | {'crc32': _crc32(manifest)})
  (directory / PROGRESS).unlink(missing_ok=True)


def reopen(directory: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes progress.json and removes the manifest of fewer blocks, if any."""
  facts = {name: record[name] for name in record if name not in _TOTALS}
  write(directory / PROGRESS, facts)
  (directory / MANIFEST).unlink(missing_ok=True)


def read_manifest(
    directory: pathlib.Path,
) -> tuple[dict[str, Any], Geometry, Sequence[dict[str, Any]]]:
  """Returns the manifest, the geometry and the block records of a store.

  Raises:
    MissingInputError: the directory does not exist.
    DataError: the store is incomplete, damaged, or of a newer format.
  """
  path = directory / MANIFEST
  if not directory.is_dir():
    raise errors.MissingInputError(
        f'--store={directory}: no such directory; write one with `jumprelu'
        f' harvest --store={directory}`'
    )
  manifest = json_files.read_json(path, cure=arrays.CURE, missing_ok=True)
  if not manifest:
    cure = arrays.CURE
    if (directory / PROGRESS).exists():
      cure = 'the same `jumprelu harvest` command resumes it'
    raise errors.DataError(
        f'{path}: missing; this is no store, or an incomplete one; {cure}'
    )
  # The format is checked first, because a newer format may store the digest in
  # another field.
  formats.check(formats.Kind.STORE, manifest, where=str(path))
  if manifest.get('complete') is not True:
    raise errors.DataError(f'{path}: is not marked as complete; {arrays.CURE}')
  # The fields below are not checked one by one, because the digest covers them.
  if manifest.pop('crc32', None) != _crc32(manifest):
    raise errors.DataError(
        f'{path}: does not match its own digest; {arrays.CURE}'
    )
  manifest = formats.migrate(formats.Kind.STORE, manifest, where=str(path))
  geometry = Geometry.from_json(manifest['geometry'])
  blocks = directory / BLOCKS
  if not blocks.is_file() or _sha256(blocks) != manifest.get('blocks_sha256'):
    raise errors.DataError(
        f'{blocks}: does not match the manifest; {arrays.CURE}'
    )
  return manifest, geometry, read_blocks(directory)


def array_names(taps: Iterable[lm.Tap]) -> dict[str, str]:
  """Returns {tap as text: the name of its array} for a new store."""
  return {str(tap): str(tap) for tap in taps}


def _crc32(value: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _sha256(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
