"""Columns of the Parquet files: flat arrays to lists of records."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from jumprelu import extras
from jumprelu.array_typing import Int


def lists(starts: Int[np.ndarray, ' rows_and_end'], values: Any) -> Any:
  """Returns an Arrow array of lists; list i holds values from starts[i]."""
  with extras.imports():
    import pyarrow

  offsets = pyarrow.array(np.asarray(starts, np.int32))
  return pyarrow.ListArray.from_arrays(offsets, _array(values))


def rows_of(matrix: np.ndarray) -> Any:
  """Returns an Arrow array with each row of a matrix as a list."""
  rows, columns = matrix.shape
  return lists(np.arange(rows + 1) * columns, matrix.reshape(-1))


def records(fields: Mapping[str, Any]) -> Any:
  """Returns an Arrow array of records with these fields."""
  with extras.imports():
    import pyarrow

  arrays = [_array(values) for values in fields.values()]
  return pyarrow.StructArray.from_arrays(arrays, names=list(fields))


def write(path: pathlib.Path, columns: Mapping[str, Any]) -> None:
  """Writes columns as one Parquet file; it appears when it is complete."""
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(path.name + '.partial')
  parquet.write_table(pyarrow.table(dict(columns)), draft, compression='zstd')
  draft.rename(path)


def _array(values: Any) -> Any:
  with extras.imports():
    import pyarrow

  return pyarrow.array(values) if isinstance(values, np.ndarray) else values
