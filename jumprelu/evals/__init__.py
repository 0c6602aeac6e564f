"""Evaluation: one file a metric, each a record of sums that merges.

A record's `from_batch` runs on the device inside a jit and sums one batch; on
the host `merge` adds records in float64 and int64 (float32 counters stop at
2^24) and `compute` finishes them. So any split of the tokens gives the same
numbers, and nothing is a mean of ratios.
"""

import dataclasses

from jumprelu import errors

# A part of the key of every stored evaluation. It is raised whenever a change
# of the code changes a number in the rows or tables, so that evaluations which
# older code has stored are made anew. (The package's version would not do: it
# changes with each release, and not with each commit.)
VERSION = 2


def _field(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Config:
  """How much held-out text is read, and what counts as dead or dense."""

  tokens: int = _field(
      102_400,
      'Held-out positions for L0, FVU, gamma and firing frequencies.',
  )
  delta_loss_tokens: int = _field(
      24_576,
      'Held-out positions for the losses: clean, spliced and ablated.',
  )
  pca_tokens: int = _field(
      65_536,
      'Training positions that the PCA baseline is fitted on; 0 leaves it out.',
  )
  dead_window_tokens: int = _field(
      100_000,
      'A latent is dead if silent over this many kept held-out tokens. Where '
      'fewer are evaluated, no share of dead latents is reported.',
  )
  dense_share: float = _field(
      0.1, 'A latent is dense if it fires on more than this share of tokens.'
  )
  lm_sequences: int = _field(
      32, 'Sequences that go through the language model at a time.'
  )

  def __post_init__(self):
    for name in ('tokens', 'delta_loss_tokens', 'lm_sequences'):
      if getattr(self, name) < 1:
        raise errors.UserError(
            f'eval.{name} is {getattr(self, name)}: it must be at least 1'
        )
    if self.pca_tokens < 0:
      raise errors.UserError(
          f'eval.pca_tokens is {self.pca_tokens}: use 0 for no PCA baseline'
      )
    if self.dead_window_tokens < 100_000:
      raise errors.UserError(
          f'eval.dead_window_tokens is {self.dead_window_tokens}: no latent may '
          'be called dead on fewer than 100_000 tokens'
      )
    if not 0 < self.dense_share < 1:
      raise errors.UserError(
          f'eval.dense_share is {self.dense_share}: it is a share, between 0 '
          'and 1'
      )
