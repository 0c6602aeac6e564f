"""Optional measures, which an evaluation computes only on request."""

from collections.abc import Callable, Iterable

from jumprelu import errors
from jumprelu.evals.measures import (
    absorption,
    attribution,
    context,
    geometry,
    histogram,
    kl,
    low_precision,
    positions,
    probing,
    pursuit,
    saebench,
    splitting,
    stability,
    uniformity,
)

MEASURES: dict[str, Callable[[context.Context], context.Measured]] = {
    'absorption': absorption.measure,
    'attribution': attribution.measure,
    'bfloat16': low_precision.measure,
    'geometry': geometry.measure,
    'histogram': histogram.measure,
    'kl': kl.measure,
    'positions': positions.measure,
    'probing': probing.measure,
    'pursuit': pursuit.measure,
    'r_l0': uniformity.measure,
    'saebench': saebench.measure,
    'splitting': splitting.measure,
    'stability': stability.measure,
}


def check(names: Iterable[str]) -> tuple[str, ...]:
  """Returns the names without repetitions.

  Raises:
    UserError: if a name is unknown; the error lists all known names.
  """
  unique = tuple(dict.fromkeys(names))
  for name in unique:
    if name not in MEASURES:
      raise errors.UserError(
          f'--measures: {name!r} is unknown; known are {", ".join(MEASURES)}'
      )
  return unique
