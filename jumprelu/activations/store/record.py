"""A store's own records: its progress, its blocks and, last, its manifest."""

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

# Fields that decide which rows a stream yields, and exceptions among them.
_HARD = (
    'model',
    'data',
    'input_gain',
    'matmul_precision',
    'stream.',
    'corpus.',
)
_SOFT = (
    'stream.lm_sequences',
    'stream.batches_per_dispatch',
    'corpus.cache_dir',
    'corpus.data_dir',
)


def identity(config: dotted.Dataclass, *, dtype: str) -> dict[str, Any]:
  """Returns the fields of a config that decide which rows its stream yields.

  `dtype` is the dtype of the language model, which the config may leave open.
  """
  fields = {
      path: leaf.value
      for path, leaf in dotted.leaves(config).items()
      if dotted.is_among(path, _HARD) and not dotted.is_among(path, _SOFT)
  }
  return fields | {'lm_dtype': dtype}


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
  """Returns the fields that differ between two identities, as text."""
  return [
      f'{name} was {stored.get(name)!r}, is {wanted.get(name)!r}'
      for name in sorted(stored.keys() | wanted.keys())
      if stored.get(name) != wanted.get(name)
  ]


def write(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a record of the store."""
  json_files.write_json(path, value, indent=1, sort_keys=True)


def read_progress(directory: pathlib.Path) -> dict[str, Any]:
  """Returns the record of an incomplete store, or {} if it does not exist."""
  path = directory / PROGRESS
  progress = json_files.read_json(path, cure=arrays.CURE, missing_ok=True)
  return progress and formats.migrate(
      formats.Kind.STORE, progress, where=str(path)
  )


def append_block(directory: pathlib.Path, block: Mapping[str, Any]) -> None:
  """Appends the record of a block whose rows are on the disk."""
  json_files.append_line(
      directory / BLOCKS, block, sort_keys=True, durable=True
  )


def read_blocks(directory: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of all blocks, except for an unfinished last line."""
  path = directory / BLOCKS
  if not path.exists():
    return []
  return json_files.read_lines(path, skip_unfinished=True)


def drop_unfinished_line(directory: pathlib.Path) -> int:
  """Removes an unfinished last line; returns the number of blocks."""
  blocks = read_blocks(directory)
  lines = [json.dumps(block, sort_keys=True) + '\n' for block in blocks]
  json_files.write_text(directory / BLOCKS, ''.join(lines))
  return len(blocks)


def finish(directory: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes the manifest and removes the record of progress."""
  blocks = read_blocks(directory)
  manifest = {
      **record,
      'complete': True,
      'rows': sum(block['rows'] for block in blocks),
      'kept': sum(block['kept'] for block in blocks),
      'dropped': sum(block['dropped'] for block in blocks),
      'blocks_sha256': _sha256(directory / BLOCKS),
  }
  write(directory / MANIFEST, manifest | {'crc32': _crc32(manifest)})
  (directory / PROGRESS).unlink(missing_ok=True)


def read_manifest(
    directory: pathlib.Path,
) -> tuple[dict[str, Any], Geometry, Sequence[dict[str, Any]]]:
  """Returns manifest, geometry and blocks of a complete store.

  Raises:
    MissingInputError: The directory does not exist.
    DataError: The store is incomplete, damaged, or of a newer format.
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
    raise errors.DataError(f'{path}: missing, the store is incomplete; {cure}')
  # The format is checked first, because a newer one may move the digest.
  formats.check(formats.Kind.STORE, manifest, where=str(path))
  if manifest.get('complete') is not True:
    raise errors.DataError(f'{path}: is not marked as complete; {arrays.CURE}')
  # With a matching digest, all other fields are as they were written.
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
  """Returns {tap as text: name of its array} for a new store."""
  return {str(tap): str(tap) for tap in taps}


def _crc32(value: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _sha256(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
