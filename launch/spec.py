"""What is launched: a run of some layers, on which machines, by which command.

Pure: nothing here touches a file, a cluster or a device. A bad spec is one
error that names every problem.
"""

import dataclasses

from jumprelu import errors
from launch import options as options_lib
from launch import tpu_types, validation


@dataclasses.dataclass(frozen=True)
class LaunchSpec:
  """The options and the flags of `jumprelu train`, found to be good."""

  options: options_lib.Options
  trainer_flags: tuple[str, ...] = ()

  def __post_init__(self):
    problems = [
        *validation.problems(self.options),
        *validation.flag_problems(self.trainer_flags),
    ]
    if problems:
      raise errors.UserError('; '.join(problems))

  @property
  def layers(self) -> tuple[int, ...]:
    """The layers, each its own job."""
    return options_lib.parse_layers(self.options.layers)

  @property
  def slice(self) -> tpu_types.Slice:
    """The TPU slice of each job."""
    return tpu_types.make_slice(self.options.accelerator, self.options.topology)

  @property
  def max_restarts(self) -> int:
    """Counted restarts; a spot slice's lost peers are counted now and then."""
    if self.options.max_restarts is not None:
      return self.options.max_restarts
    return 50 if self.options.spot else 8

  @property
  def volumes(self) -> tuple[options_lib.Volume, ...]:
    """The volumes, read."""
    return tuple(map(options_lib.parse_volume, self.options.volumes))

  @property
  def secrets(self) -> tuple[options_lib.Secret, ...]:
    """The references to secrets, read."""
    return tuple(map(options_lib.parse_secret, self.options.secrets))

  @property
  def env(self) -> dict[str, str]:
    """The plain variables, read."""
    pairs = (text.partition('=') for text in self.options.env)
    return {name: value for name, _, value in pairs}

  def name(self, layer: int) -> str:
    """The name of a layer's job, wherever it runs."""
    return f'{self.options.run}-l{layer:02d}'

  def run_dir(self, layer: int) -> str:
    """The run directory of a layer."""
    root = self.options.out.rstrip('/')
    return f'{root}/{self.options.run}/layer_{layer:02d}'

  def command(self, layer: int) -> list[str]:
    """The trainer's argv: the same on a laptop and on a pod."""
    return [
        'python',
        '-m',
        'jumprelu.run.main',
        'train',
        f'--out={self.run_dir(layer)}',
        f'--layer={layer}',
        *self.trainer_flags,
    ]
