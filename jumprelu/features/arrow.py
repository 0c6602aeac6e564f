"""Columns of the Parquet files: flat arrays to lists of records, and back."""

from collections.abc import Mapping
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import extras
from jumprelu.array_typing import Int
from jumprelu.files import durable


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


class Lists(NamedTuple):
  """A column of lists: list i has the values from starts[i]."""

  starts: np.ndarray
  values: Any


def lists_of(column: Any) -> Lists:
  """Returns the lists of an Arrow array or column, which may be a slice."""
  chunked = hasattr(column, 'combine_chunks')
  array = column.combine_chunks() if chunked else column
  lengths = np.asarray(array.value_lengths())
  starts = np.append(0, np.cumsum(lengths)).astype(np.int32)
  return Lists(starts, array.flatten())


def fields(values: Any) -> dict[str, Any]:
  """Returns the fields of an Arrow array of records."""
  names = [field.name for field in values.type]
  return dict(zip(names, values.flatten(), strict=True))


def numbers(values: Any, dtype: Any) -> np.ndarray:
  """Returns an Arrow array or column of numbers as an array."""
  return np.asarray(values.to_numpy(zero_copy_only=False), dtype)


def write(path: pathlib.Path, columns: Mapping[str, Any]) -> None:
  """Writes columns as one Parquet file; it appears when it is complete."""
  with extras.imports():
    import pyarrow
    from pyarrow import parquet

  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(path.name + '.partial')
  parquet.write_table(
      pyarrow.table(dict(columns)),
      draft,
      compression='zstd',
      write_page_checksum=True,
  )
  durable.sync(draft)
  draft.rename(path)


def _array(values: Any) -> Any:
  with extras.imports():
    import pyarrow

  return pyarrow.array(values) if isinstance(values, np.ndarray) else values
