"""Evaluations on disk, reused only for an identical request."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from jumprelu import errors, extras
from jumprelu.evals import evaluate, results
from jumprelu.files import digests, json_files, npz, remote

with extras.imports():
  from etils import epath

_META, _ROWS, _FREQUENCIES = 'meta.json', 'results.jsonl', 'frequencies.npz'


def write(
    evaluation: evaluate.Evaluation,
    folder: str | os.PathLike[str],
    key: Mapping[str, Any],
) -> None:
  """Writes an evaluation's rows, tables and firing frequencies to a folder.

  Args:
    evaluation: The evaluation.
    folder: A folder for this evaluation only, local or remote.
    key: Everything that determines the results, as plain JSON values.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  # The key is deleted first and written last, so that a folder from an
  # interrupted write is never reused.
  (folder / _META).unlink(missing_ok=True)
  arrays = {
      str(i): np.asarray(frequency, np.float32)
      for i, frequency in enumerate(evaluation.firing_frequency)
  }
  # Files are first written locally, because Arrow and NumPy cannot write remote
  # files.
  with tempfile.TemporaryDirectory() as name:
    draft = pathlib.Path(name)
    results.write(evaluation.rows, draft / _ROWS)
    for name, table in evaluation.tables.items():
      results.write(table, draft / f'{name}.jsonl')
    npz.write_npz(draft / _FREQUENCIES, arrays)
    sha256 = {}
    for path in sorted(draft.iterdir()):
      (folder / path.name).write_bytes(path.read_bytes())
      sha256[path.name] = digests.sha256_of(path)
  meta = {
      'key': dict(key),
      'sha256': sha256,
      'tables': list(evaluation.tables),
      'widths': [len(frequency) for frequency in arrays.values()],
  }
  json_files.write_json(folder / _META, meta, seal=True)


def exists(folder: str | os.PathLike[str], key: Mapping[str, Any]) -> bool:
  """Returns whether `folder` has an evaluation with this key."""
  folder = epath.Path(folder)
  if not (folder / _META).exists():
    return False
  with _local(folder, [_META]) as copy:
    return json_files.read_json(copy / _META).get('key') == dict(key)


def read(
    folder: str | os.PathLike[str], key: Mapping[str, Any]
) -> evaluate.Evaluation | None:
  """Returns the evaluation stored with this key, or None.

  Raises:
    DataError: a file is damaged.
  """
  if not exists(folder, key):
    return None
  folder = epath.Path(folder)
  with _local(folder, [_META]) as copy:
    meta = json_files.read_json(copy / _META)
  tables = {name: f'{name}.jsonl' for name in meta['tables']}
  shapes = {str(i): (width,) for i, width in enumerate(meta['widths'])}
  with _local(folder, [_ROWS, _FREQUENCIES, *tables.values()]) as copy:
    for name, digest in meta.get('sha256', {}).items():
      path = copy / name
      if path.exists() and digests.sha256_of(path) != digest:
        raise errors.DataError(
            f'{folder / name}: does not match its sha256 in {_META}; remove the'
            ' folder to evaluate again'
        )
    return evaluate.Evaluation(
        results.read(copy / _ROWS),
        list(npz.read_npz(copy / _FREQUENCIES, shapes).values()),
        {name: results.read(copy / file) for name, file in tables.items()},
    )


@contextlib.contextmanager
def _local(folder: epath.Path, names: Sequence[str]) -> Iterator[pathlib.Path]:
  """Yields a local folder with these files: a copy if `folder` is remote."""
  if not remote.is_remote(folder):
    yield pathlib.Path(folder)
    return
  with tempfile.TemporaryDirectory() as copy:
    for name in names:
      pathlib.Path(copy, name).write_bytes((folder / name).read_bytes())
    yield pathlib.Path(copy)
