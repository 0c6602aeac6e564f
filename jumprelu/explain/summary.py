"""Summaries of the scores of many latents."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jumprelu import explain

# A latent is explained if its scores are at least this.
EXPLAINED = 0.8
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the distribution of each score, and the shares of latents.

  A latent is explained, by its explanation or by a single token, if detection
  and fuzzing are both at least `EXPLAINED`. Latents without both scores are left
  out of the shares.

  Args:
    rows: The rows of the latents' explanations.
  """
  scores = {}
  for kind in explain.KINDS:
    parts = [row[kind] for row in rows]
    values = [p['score'] for p in parts if p['score'] is not None]
    scores[kind] = _distribution(values) | {
        'answers': sum(p['count'] for p in parts),
        'unparsable': sum(p['unparsable'] for p in parts),
    }
  return {
      'latents': len(rows),
      'unexplained': sum(not row['explanation'] for row in rows),
      'scores': scores,
      'explained': _share([_explained(row) for row in rows]),
      'single_token': _share([_explained(row['single_token']) for row in rows]),
  }


def _explained(row: Mapping[str, Any]) -> bool | None:
  """Returns whether both scores suffice; None if a score is missing."""
  values = [
      score['score'] if isinstance(score, Mapping) else score
      for score in (row['detection'], row['fuzzing'])
  ]
  known = [value for value in values if value is not None]
  return min(known) >= EXPLAINED if len(known) == 2 else None


def _distribution(values: Sequence[float]) -> dict[str, Any]:
  count = len(values)
  if not count:
    return {'latents': 0, 'mean': None, 'error': None, 'quantiles': None}
  error = np.std(values, ddof=1) / np.sqrt(count) if count > 1 else None
  return {
      'latents': count,
      'mean': float(np.mean(values)),
      'error': None if error is None else float(error),
      'quantiles': np.quantile(values, _QUANTILES).tolist(),
  }


def _share(flags: Sequence[bool | None]) -> dict[str, Any]:
  known = [flag for flag in flags if flag is not None]
  return {
      'latents': len(known),
      'share': sum(known) / len(known) if known else None,
  }


def lines(name: str, summary: Mapping[str, Any]) -> list[str]:
  """Returns a summary as lines of a table."""
  out = [f'{name}: {summary["latents"]:,} latents']
  out.append(
      f'{"score":<12}{"latents":>8}{"mean":>15}{"10%":>8}{"25%":>8}{"50%":>8}'
      f'{"75%":>8}{"90%":>8}{"unparsable":>12}'
  )
  for kind, part in summary['scores'].items():
    if not part['latents']:
      continue
    error = '' if part['error'] is None else f' ±{part["error"]:.3f}'
    mean = f'{part["mean"]:.3f}{error}'
    quantiles = ''.join(f'{q:8.2f}' for q in part['quantiles'])
    unparsable = f'{part["unparsable"]:,}'
    out.append(
        f'{kind:<12}{part["latents"]:>8,}{mean:>15}{quantiles}{unparsable:>12}'
    )
  for key, text in (
      ('explained', 'explained'),
      ('single_token', 'explained by a single token'),
  ):
    part = summary[key]
    if part['latents']:
      out.append(
          f'{part["share"]:.1%} of {part["latents"]:,} latents are {text}:'
          f' detection and fuzzing at least {EXPLAINED}'
      )
  return out
