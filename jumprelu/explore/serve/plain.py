"""Results as plain values: numbers, texts, lists and dicts."""

import math
from typing import Any

import numpy as np

from jumprelu.explore.serve import programs as passes


def summary(
    path: str, largest_latents: passes.Summary, count: int, k: int
) -> dict[str, Any]:
  """Returns a member's row of the summary of a text of `count` tokens."""
  largest = largest_latents.largest
  latents, values = [], []
  for ids, row in zip(
      largest.latents[:count, :k].tolist(),
      largest.values[:count, :k].tolist(),
      strict=True,
  ):
    active = sum(value != 0 for value in row)
    latents.append(ids[:active])
    values.append([number(value) for value in row[:active]])
  return {
      'id': path,
      'l0': largest.count[:count].tolist(),
      'error': numbers(largest_latents.error[:count]),
      'latents': latents,
      'values': values,
  }


def numbers(values: Any) -> list[float | None]:
  """Returns an array as a list of `number`."""
  return [number(value) for value in np.asarray(values).tolist()]


def number(value: Any) -> float | None:
  """Returns a number of seven digits, all that float32 has, or None."""
  value = float(value)
  return float(f'{value:.7g}') if math.isfinite(value) else None


def mean(losses: Any) -> float | None:
  """Returns the mean, or None if there are no losses."""
  return number(np.mean(losses)) if len(losses) else None
