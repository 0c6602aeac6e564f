"""Settings of the optional measures.

The settings are separate from `evals.Config`, which is part of a run's config,
because a run never computes these measures. New settings therefore do not
change the format of stored run configs.
"""

import dataclasses
from typing import Literal

from jumprelu.files import fields


@dataclasses.dataclass(frozen=True)
class Probing:
  """Settings of sparse probing: the labels and the amount of text."""

  data: str = fields.field(
      '',
      'A .jsonl file of {"text": ..., "label": ...}, or a directory of such'
      " files. Default: the standard library, labelled by Python's tokenizer.",
  )
  tokens: int = fields.field(
      24_576, 'Number of positions of the standard library, if data is empty.'
  )
  texts: int = fields.field(5_000, 'Maximum number of texts from each file.')
  pooling: Literal['mean', 'max'] = fields.field(
      'mean', "How a text's latents are pooled over its kept tokens."
  )

  def __post_init__(self):
    fields.check_counts(self, 'measure.probing', 'tokens', 'texts')


@dataclasses.dataclass(frozen=True)
class Absorption:
  """Settings of absorption: the number of words, and their prompts."""

  words: int = fields.field(
      2_048, "Number of words, which are pieces of the tokenizer's vocabulary."
  )
  shots: int = fields.field(
      10, 'Example words, with their first letters, before each word.'
  )

  def __post_init__(self):
    fields.check_counts(self, 'measure.absorption', 'words')
    fields.require(
        'measure.absorption.shots',
        self.shots,
        self.shots >= 0,
        'at least 0, where 0 means no example words',
    )


@dataclasses.dataclass(frozen=True)
class Attribution:
  """Settings of attribution: the metric whose changes are attributed."""

  metric: Literal['logit', 'loss'] = fields.field(
      'logit',
      "The next token's logit minus the mean of all logits, or its loss.",
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of all optional measures, by the measure's name."""

  probing: Probing = Probing()
  absorption: Absorption = Absorption()
  attribution: Attribution = Attribution()
