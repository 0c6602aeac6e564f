"""The config of checkpoints, which can be imported without orbax."""

import dataclasses

from jumprelu.files import fields


@dataclasses.dataclass(frozen=True)
class Config:
  """The frequency of checkpoints, and the number of checkpoints to keep."""

  every_blocks: int = fields.field(1, 'number of blocks between checkpoints')
  keep: int = fields.field(3, 'number of newest checkpoints to keep')

  def __post_init__(self):
    fields.check_counts(self, 'checkpoint', 'every_blocks', 'keep')
