"""When checkpoints are saved; orbax is not needed to say so."""

import dataclasses

from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Config:
  """When to save and how much to keep."""

  every_blocks: int = dataclasses.field(
      default=1, metadata={'help': 'blocks between two checkpoints'}
  )
  keep: int = dataclasses.field(
      default=3, metadata={'help': 'how many of the newest are kept'}
  )

  def __post_init__(self):
    for name in ('every_blocks', 'keep'):
      if getattr(self, name) < 1:
        raise errors.UserError(
            f'checkpoint.{name} is {getattr(self, name)}: must be at least 1'
        )
