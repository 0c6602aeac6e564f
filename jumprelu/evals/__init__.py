"""Evaluation: one file per metric, each with a record of sums that merges.

A record's `from_batch` runs on the device inside a jit and sums one batch. On
the host, `merge` adds records in float64 and int64 (float32 counters are exact
only up to 2^24), and `compute` returns the metrics. The metrics are ratios of
total sums, not means of per-batch ratios, so they do not depend on the batch
size. The exception is `measures.saebench`, which follows SAEBench's
definitions.
"""

import dataclasses

from jumprelu import errors

# Part of the key of every stored evaluation. It is incremented whenever a code
# change alters a number in the rows or tables, so that evaluations stored by
# older code are recomputed. The package version is not used,
# because it changes with each release and not with each commit.
VERSION = 2


def _field(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Config:
  """Amounts of text, and the thresholds for dead and dense latents."""

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
      'Training positions on which the PCA baseline is fitted; 0 disables it.',
  )
  dead_window_tokens: int = _field(
      100_000,
      'A latent is dead if it never fires on this many kept held-out tokens. '
      'With fewer evaluated tokens, no share of dead latents is reported.',
  )
  dense_share: float = _field(
      0.1, 'A latent is dense if it fires on more than this share of tokens.'
  )
  lm_sequences: int = _field(32, 'Sequences in a batch of the language model.')

  def __post_init__(self):
    for name in ('tokens', 'delta_loss_tokens', 'lm_sequences'):
      if getattr(self, name) < 1:
        raise errors.UserError(
            f'eval.{name} is {getattr(self, name)}: it must be at least 1'
        )
    if self.pca_tokens < 0:
      raise errors.UserError(
          f'eval.pca_tokens is {self.pca_tokens}: it must be at least 0 (0'
          ' disables the PCA baseline)'
      )
    if self.dead_window_tokens < 100_000:
      raise errors.UserError(
          f'eval.dead_window_tokens is {self.dead_window_tokens}: it must be at'
          ' least 100_000, because silence on fewer tokens does not show that a'
          ' latent is dead'
      )
    if not 0 < self.dense_share < 1:
      raise errors.UserError(
          f'eval.dense_share is {self.dense_share}: it must be between 0 and 1'
      )
