"""Prompts from held-out text, and means with errors."""

import pathlib
from typing import Any, NamedTuple

import numpy as np


class Mean(NamedTuple):
  """A mean over prompts and its standard error."""

  value: float
  stderr: float


def prompts(
    features: pathlib.Path, *, count: int, length: int, bos: int
) -> list[list[int]]:
  """Returns consecutive windows of the passages of a folder of features.

  Args:
    features: The folder, which `jumprelu features` wrote.
    count: The number of prompts.
    length: The number of tokens of each, without BOS.
    bos: The id of BOS, which each prompt begins with.

  Raises:
    ValueError: The passages are too short.
  """
  from jumprelu.features import reading

  passages = reading.read_texts(features)['tokens'].to_pylist()
  windows = [
      [bos, *passage[start : start + length]]
      for start in range(0, max(map(len, passages)), length)
      for passage in passages
      if start + length <= len(passage)
      and bos not in passage[start : start + length]
  ]
  if len(windows) < count:
    raise ValueError(
        f'{features}: {len(windows)} windows of {length} tokens, {count} are'
        ' needed; collect features with more --features.texts'
    )
  return windows[:count]


def mean(values: Any) -> Mean:
  """Returns the mean of a number per prompt."""
  values = np.asarray(values, np.float64)
  error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
  return Mean(float(values.mean()), float(error))
