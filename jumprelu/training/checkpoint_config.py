"""The config of checkpoints, which can be imported without orbax."""

import dataclasses

from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Config:
  """How often checkpoints are saved, and how many are kept."""

  every_blocks: int = dataclasses.field(
      default=1, metadata={'help': 'blocks between two checkpoints'}
  )
  keep: int = dataclasses.field(
      default=3, metadata={'help': 'number of newest checkpoints to keep'}
  )

  def __post_init__(self):
    for name in ('every_blocks', 'keep'):
      if getattr(self, name) < 1:
        raise errors.UserError(
            f'checkpoint.{name} is {getattr(self, name)}: must be at least 1'
        )
