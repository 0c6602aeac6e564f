"""Evaluation of SAEs: each metric has a file with a mergeable record of sums.

A record's `from_batch` sums one batch on the device, inside a jit. On the host,
`merge` adds records in float64 and int64, because float32 counters are exact
only up to 2^24, and `compute` returns the metrics. The metrics are ratios of
total sums, not means of per-batch ratios, so they do not depend on the batch
size. The exception is `measures.saebench`, which follows SAEBench's
definitions.
"""

import dataclasses

from jumprelu.files import fields

# Part of the key of every stored evaluation. It is incremented whenever a code
# change alters a number in the rows or tables, so that evaluations stored by
# older code are recomputed. The package's version would not be enough, because
# it stays the same between releases while the code changes.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Config:
  """Amounts of text, and the thresholds for dead and dense latents."""

  tokens: int = fields.field(
      102_400,
      'Held-out positions for L0, FVU, gamma and firing frequencies.',
  )
  delta_loss_tokens: int = fields.field(
      24_576,
      'Held-out positions for the losses (clean, spliced and ablated); at most '
      'eval.tokens are used.',
  )
  pca_tokens: int = fields.field(
      65_536,
      'Training positions on which the PCA baseline is fitted; 0 disables it.',
  )
  dead_window_tokens: int = fields.field(
      100_000,
      'A latent is dead if it never fires on the first kept held-out tokens, '
      'this many rounded up to whole batches. With fewer tokens in total, no '
      'share of dead latents is reported.',
  )
  dense_share: float = fields.field(
      0.1, 'A latent is dense if it fires on more than this share of tokens.'
  )
  lm_sequences: int = fields.field(
      32, 'Sequences in a batch of the language model.'
  )

  def __post_init__(self):
    fields.check_counts(
        self, 'eval', 'tokens', 'delta_loss_tokens', 'lm_sequences'
    )
    for name, low, why in (
        ('pca_tokens', 0, 'where 0 disables the PCA baseline'),
        (
            'dead_window_tokens',
            100_000,
            'because a latent may be silent on fewer tokens without being dead',
        ),
    ):
      value = getattr(self, name)
      rule = f'at least {low:_}, {why}'
      fields.require(f'eval.{name}', value, value >= low, rule)
    share = self.dense_share
    fields.require('eval.dense_share', share, 0 < share < 1, 'between 0 and 1')
