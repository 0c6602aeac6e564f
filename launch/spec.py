"""The spec of a launch: layers, machines and the trainer's command.

This module is pure: it touches no file, cluster or device. A bad spec raises
one error that names every problem.
"""

import dataclasses

from jumprelu import errors
from launch import options as options_lib
from launch import tpu_types, validation


@dataclasses.dataclass(frozen=True)
class LaunchSpec:
  """Validated options of the launcher, and flags of `jumprelu train`."""

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
    """The layers; each is a separate job."""
    return options_lib.parse_layers(self.options.layers)

  @property
  def slice(self) -> tpu_types.Slice:
    """The TPU slice of each job."""
    return tpu_types.make_slice(self.options.accelerator, self.options.topology)

  @property
  def max_restarts(self) -> int:
    """The limit on counted restarts.

    The default is larger on spot, where preemptions may be counted as crashes.
    """
    if self.options.max_restarts is not None:
      return self.options.max_restarts
    return 50 if self.options.spot else 8

  @property
  def volumes(self) -> tuple[options_lib.Volume, ...]:
    """The parsed volumes."""
    return tuple(map(options_lib.parse_volume, self.options.volumes))

  @property
  def secrets(self) -> tuple[options_lib.Secret, ...]:
    """The parsed references to secrets."""
    return tuple(map(options_lib.parse_secret, self.options.secrets))

  @property
  def env(self) -> dict[str, str]:
    """The parsed plain environment variables."""
    pairs = (text.partition('=') for text in self.options.env)
    return {name: value for name, _, value in pairs}

  def name(self, layer: int) -> str:
    """Returns the name of a layer's job, the same on every target."""
    return f'{self.options.run}-l{layer:02d}'

  def run_dir(self, layer: int) -> str:
    """Returns the run directory of a layer."""
    root = self.options.out.rstrip('/')
    return f'{root}/{self.options.run}/layer_{layer:02d}'

  def command(self, layer: int) -> list[str]:
    """Returns the trainer's argv, the same on a laptop and on a pod."""
    return [
        'python',
        '-m',
        'jumprelu.run.main',
        'train',
        f'--out={self.run_dir(layer)}',
        f'--layer={layer}',
        *self.trainer_flags,
    ]
