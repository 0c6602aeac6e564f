"""Taps as people write them."""

from collections.abc import Sequence
from typing import Any

from jumprelu import errors, lm

Taps = lm.Tap | str | Sequence[Any]


def parse(taps: Taps, *, config: lm.LmConfig) -> tuple[lm.Tap, ...]:
  """Returns the taps of one tap or several.

  Args:
    taps: A tap, a pair such as (2, 'resid_post'), a text such as
      'layer_2.resid_post', or a sequence of these.
    config: The model's shapes.

  Raises:
    UserError: A tap is not one of the model's.
  """
  if isinstance(taps, str) or _is_pair(taps):
    taps = (taps,)
  if not isinstance(taps, Sequence) or not taps:
    raise errors.UserError(f'taps={taps!r}: {_expected(config)}')
  return tuple(_parse(tap, config) for tap in taps)


def _is_pair(tap: Any) -> bool:
  return isinstance(tap, tuple) and len(tap) == 2 and isinstance(tap[0], int)


def _parse(tap: Any, config: lm.LmConfig) -> lm.Tap:
  try:
    known = lm.parse_tap(tap) if isinstance(tap, str) else lm.Tap(*tap)
    known = lm.Tap(known.layer, lm.Site(known.site))
  except (TypeError, ValueError, errors.DataError):
    raise errors.UserError(f'tap {tap!r}: {_expected(config)}') from None
  if not 0 <= known.layer < config.layers:
    raise errors.UserError(
        f'tap {known}: {config.name} has layers 0 to {config.layers - 1}'
    )
  return known


def _expected(config: lm.LmConfig) -> str:
  last = config.layers - 1
  return (
      f'pass jumprelu.Tap(LAYER, SITE) with a layer from 0 to {last} and one of'
      f' the sites {", ".join(lm.Site)}'
  )
