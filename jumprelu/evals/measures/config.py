"""What measures that are asked for by name may be told.

They are apart from `evals.Config`, which is part of a run's own config: a run
never takes these measures, and its config must stay readable.
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
  """Sparse probes: on which labels, and on how much text."""

  data: str = _field(
      '',
      'A .jsonl file of {"text": ..., "label": ...}, or a directory of such;'
      " default: what Python's tokenizer says of the standard library.",
  )
  tokens: int = _field(
      24_576, 'Positions of the standard library that are labelled.'
  )
  texts: int = _field(5_000, 'Texts that are taken of each file at most.')
  pooling: Literal['mean', 'max'] = _field(
      'mean', "What a text's latents are, over its kept tokens."
  )

  def __post_init__(self):
    _check_positive(self, 'probing', 'tokens', 'texts')


@dataclasses.dataclass(frozen=True)
class Absorption:
  """First letters: how many words, and what stands before each."""

  words: int = _field(
      2_048, "Alphabetic pieces of the tokenizer's vocabulary that are used."
  )
  shots: int = _field(
      10, 'Other words, with their first letters, before each word.'
  )

  def __post_init__(self):
    _check_positive(self, 'absorption', 'words')
    if self.shots < 0:
      raise errors.UserError(
          f'measure.absorption.shots is {self.shots}: use 0 for words alone'
      )


@dataclasses.dataclass(frozen=True)
class Attribution:
  """Attribution: of what."""

  metric: Literal['logit', 'loss'] = _field(
      'logit',
      "The next token's logit above the mean of all logits, or its loss.",
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """All of them, by the measure's name."""

  probing: Probing = Probing()
  absorption: Absorption = Absorption()
  attribution: Attribution = Attribution()
