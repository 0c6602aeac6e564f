"""An evaluation on disk, read again only for the very same request."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np

from jumprelu.evals import evaluate, results
from jumprelu.files import json_files, npz

_META, _ROWS, _FREQUENCIES = 'meta.json', 'results.jsonl', 'frequencies.npz'


def write(
    found: evaluate.Evaluation, folder: pathlib.Path, key: Mapping[str, Any]
) -> None:
  """Writes rows, tables and firing frequencies.

  Args:
    found: The evaluation.
    folder: Where it lies, alone.
    key: What it follows from, in plain values as JSON has them.
  """
  folder.mkdir(parents=True, exist_ok=True)
  # The record of what it is comes last: without it nothing is used again.
  (folder / _META).unlink(missing_ok=True)
  results.write(found.rows, folder / _ROWS)
  for name, table in found.tables.items():
    results.write(table, folder / f'{name}.jsonl')
  arrays = {
      str(i): np.asarray(frequency, np.float32)
      for i, frequency in enumerate(found.firing_frequency)
  }
  npz.write_npz(folder / _FREQUENCIES, arrays)
  meta = {
      'key': dict(key),
      'tables': list(found.tables),
      'widths': [len(frequency) for frequency in arrays.values()],
  }
  (folder / _META).write_text(json.dumps(meta), 'utf-8')


def is_there(folder: pathlib.Path, key: Mapping[str, Any]) -> bool:
  """Says whether `read` would find it."""
  meta = folder / _META
  return meta.is_file() and json_files.read_json(meta).get('key') == dict(key)


def read(
    folder: pathlib.Path, key: Mapping[str, Any]
) -> evaluate.Evaluation | None:
  """Reads what `write` wrote under this key; None if there is nothing."""
  if not is_there(folder, key):
    return None
  meta = json_files.read_json(folder / _META)
  shapes = {str(i): (width,) for i, width in enumerate(meta['widths'])}
  return evaluate.Evaluation(
      results.read(folder / _ROWS),
      list(npz.read_npz(folder / _FREQUENCIES, shapes).values()),
      {name: results.read(folder / f'{name}.jsonl') for name in meta['tables']},
  )
