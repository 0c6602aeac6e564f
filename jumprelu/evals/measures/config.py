"""Settings of the optional measures.

The settings are separate from `evals.Config`, which is part of a run's config:
a run never computes these measures, and stored run configs must stay readable.
"""

import dataclasses
from typing import Literal

from jumprelu import errors


def _field(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


def _check_positive(config, measure: str, *names: str) -> None:
  for name in names:
    if getattr(config, name) < 1:
      raise errors.UserError(
          f'measure.{measure}.{name} is {getattr(config, name)}: it must be at'
          ' least 1'
      )


@dataclasses.dataclass(frozen=True)
class Probing:
  """Settings of sparse probing: the labels and the amount of text."""

  data: str = _field(
      '',
      'A .jsonl file of {"text": ..., "label": ...}, or a directory of such'
      " files. Default: the standard library, labelled by Python's tokenizer.",
  )
  tokens: int = _field(24_576, 'Labelled positions of the standard library.')
  texts: int = _field(5_000, 'Maximum number of texts from each file.')
  pooling: Literal['mean', 'max'] = _field(
      'mean', "How a text's latents are pooled over its kept tokens."
  )

  def __post_init__(self):
    _check_positive(self, 'probing', 'tokens', 'texts')


@dataclasses.dataclass(frozen=True)
class Absorption:
  """Settings of absorption: the number of words, and their prompts."""

  words: int = _field(
      2_048, "Number of alphabetic pieces from the tokenizer's vocabulary."
  )
  shots: int = _field(
      10, 'Example words, with their first letters, before each word.'
  )

  def __post_init__(self):
    _check_positive(self, 'absorption', 'words')
    if self.shots < 0:
      raise errors.UserError(
          f'measure.absorption.shots is {self.shots}: it must be at least 0 (0'
          ' means no example words)'
      )


@dataclasses.dataclass(frozen=True)
class Attribution:
  """Settings of attribution: the metric whose changes are attributed."""

  metric: Literal['logit', 'loss'] = _field(
      'logit',
      "The next token's logit minus the mean of all logits, or its loss.",
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of all optional measures, by the measure's name."""

  probing: Probing = Probing()
  absorption: Absorption = Absorption()
  attribution: Attribution = Attribution()
