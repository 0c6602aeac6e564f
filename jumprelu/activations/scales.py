"""The scales of taps: the numbers that normalise their activations.

A run estimates them once, before its first step, and stores them, because the
parameters of an SAE are only meaningful together with them.

By default the scale of a tap is sqrt(E||x||^2) (Gemma Scope, section 3.2). Two
options of `stream.Config` are for models in which this number is misleading:

* `stream.max_norm` drops rows of extreme norm. In Gemma 3 270M, 0.35 % of tokens
  of English text (such as an apostrophe) have 5 to 12 times the median norm in
  the residual stream of layer 9, and hold 87 % of its variance. Rows of two to
  five times the median are rarer than one in 50,000, and each of them
  activates thousands of latents at once: the encoders of all these latents then
  make a step as large as Adam allows, and many never fire again.
* `stream.center` makes the scale sqrt(E||x - mean||^2) and starts the biases of
  SAEs at the mean, which has 95 % of E||x||^2 of the other rows there. Without
  it, pre-activations vary much less than the thresholds' kernel is wide.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from jumprelu import errors, lm
from jumprelu.array_typing import Float

_LIMITS, _CENTERS = 'norm_limits', 'centers'


@dataclasses.dataclass(frozen=True, eq=False)
class Scales(Mapping[lm.Tap, float]):
  """The scale of each tap.

  Attributes:
    values: The number by which activations of a tap are divided.
    limits: The largest norm of a kept row, before the division; empty if rows
      of any ordinary norm are kept.
    centers: The mean of kept rows, before the division; empty if SAEs start
      with zero biases.
  """

  values: Mapping[lm.Tap, float]
  limits: Mapping[lm.Tap, float] = dataclasses.field(default_factory=dict)
  centers: Mapping[lm.Tap, Float[np.ndarray, ' d_site']] = dataclasses.field(
      default_factory=dict
  )

  def __getitem__(self, tap: lm.Tap) -> float:
    return self.values[tap]

  def __iter__(self) -> Iterator[lm.Tap]:
    return iter(self.values)

  def __len__(self) -> int:
    return len(self.values)

  def only(self, taps: Iterable[lm.Tap]) -> 'Scales':
    """Returns the scales of these taps."""
    kept = frozenset(taps)
    return Scales(
        {tap: x for tap, x in self.values.items() if tap in kept},
        {tap: x for tap, x in self.limits.items() if tap in kept},
        {tap: x for tap, x in self.centers.items() if tap in kept},
    )

  def shared(self, other: 'Scales') -> 'Scales':
    """Returns the scales of the same taps, from `other` where it has them."""
    return Scales(
        {**self.values, **other.values},
        {**self.limits, **other.limits},
        {**self.centers, **other.centers},
    ).only(self)

  def starts(
      self, reads: lm.Reads
  ) -> tuple[Float[np.ndarray, ' _'], Float[np.ndarray, ' _']] | tuple[()]:
    """Returns the scaled means of an SAE's inputs and targets.

    The result is empty if biases start at zero.
    """
    if not self.centers:
      return ()
    inputs, targets = (
        np.concatenate([self.centers[tap] / self[tap] for tap in taps])
        for taps in (reads.inputs, reads.targets)
    )
    return inputs.astype(np.float32), targets.astype(np.float32)

  def to_json(self) -> dict[str, Any]:
    """Returns the fields of a record; `from_json` is the inverse."""
    fields: dict[str, Any] = {'scales': lm.to_json_keys(self.values)}
    if self.limits:
      fields[_LIMITS] = lm.to_json_keys(self.limits)
    if self.centers:
      centers = {tap: x.tolist() for tap, x in self.centers.items()}
      fields[_CENTERS] = lm.to_json_keys(centers)
    return fields


def centered(
    squares: Mapping[lm.Tap, float],
    centers: Mapping[lm.Tap, Float[np.ndarray, ' d_site']],
    limits: Mapping[lm.Tap, float],
) -> Scales:
  """Returns the scales sqrt(E||x - mean||^2).

  Args:
    squares: E||x||^2 of each tap.
    centers: The mean of each tap.
    limits: The largest norm of a kept row of each tap.

  Raises:
    DataError: all rows of a tap are equal.
  """
  values = {}
  for tap, square in squares.items():
    spread = square - float(np.sum(centers[tap] ** 2))
    if spread <= 1e-6 * square:
      raise errors.DataError(
          f'the activations at {tap} do not vary; leave out --stream.center'
      )
    values[tap] = spread**0.5
  return Scales(values, limits, centers)


def from_json(record: Mapping[str, Any]) -> Scales:
  """Returns the scales in a record of a run, a checkpoint or a store.

  Raises:
    DataError: a scale is missing or not a number above 0.
  """
  try:
    centers = lm.from_json_keys(record.get(_CENTERS, {}))
    return Scales(
        _above_zero(lm.from_json_keys(record['scales'])),
        _above_zero(lm.from_json_keys(record.get(_LIMITS, {}))),
        {tap: np.asarray(x, np.float64) for tap, x in centers.items()},
    )
  except errors.DataError:
    raise
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.DataError(
        f'the scales of a record are damaged ({error!r:.200}); restore the file'
        ' from a copy'
    ) from error


def _above_zero(values: dict[lm.Tap, Any]) -> dict[lm.Tap, float]:
  """Returns the values; ValueError if one is not a number above 0."""
  for tap, value in values.items():
    if not isinstance(value, int | float) or not 0 < value < float('inf'):
      raise ValueError(f'{tap} is {value!r:.40}, wanted a number above 0')
  return values
