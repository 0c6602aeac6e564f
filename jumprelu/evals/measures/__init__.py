"""Optional measures, which an evaluation computes only on request."""

from collections.abc import Callable, Iterable
from typing import Any

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

_PASS = 'a pass over the text, with a forward pass per batch and member'
# Name -> (a module whose docstring starts with the measure's meaning, the cost).
_TABLE: dict[str, tuple[Any, str]] = {
    'absorption': (
        absorption,
        'a pass over measure.absorption.words prompts, and probes on the CPU',
    ),
    'attribution': (
        attribution,
        'a pass over the text, with 4 backward passes per batch and target and 4'
        ' forward passes per batch and member',
    ),
    'bfloat16': (
        low_precision,
        'a pass over the text, with 2 forward passes per batch and member',
    ),
    'geometry': (
        geometry,
        'seconds; reads no text',
    ),
    'histogram': (
        histogram,
        'none; reads no text',
    ),
    'kl': (
        kl,
        _PASS,
    ),
    'positions': (
        positions,
        _PASS,
    ),
    'probing': (
        probing,
        'passes over labelled text (measure.probing.*), and probes on the CPU',
    ),
    'pursuit': (
        pursuit,
        'a pass over the text, with 3 products with the decoder per active'
        ' latent',
    ),
    'r_l0': (
        uniformity,
        'a pass over the text, with 4 backward passes per batch and target',
    ),
    'saebench': (
        saebench,
        _PASS,
    ),
    'splitting': (
        splitting,
        'seconds per pair of SAEs of different widths; reads no text',
    ),
    'stability': (
        stability,
        'seconds per pair of seeds at width 4,096, minutes at 16,384; reads no'
        ' text',
    ),
}

MEASURES: dict[str, Callable[[context.Context], context.Measured]] = {
    name: module.measure for name, (module, _) in _TABLE.items()
}


def describe() -> str:
  """Returns one line per measure with its meaning and cost, for `--help`."""
  lines = []
  for name, (module, cost) in _TABLE.items():
    meaning = (module.__doc__ or '').partition('\n')[0]
    lines.append(f'  {name}: {meaning} Cost: {cost}.')
  lines.append(
      'The text: --eval.delta_loss_tokens held-out positions, those of the losses.'
  )
  return '\n'.join(lines)


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
