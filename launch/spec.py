"""The spec of a launch: jobs, machines and the trainer's command.

A job trains one layer, or several, and is identified by its first layer.

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
  def jobs(self) -> tuple[int, ...]:
    """The first layer of each job."""
    return self._layers[:: self.options.layers_per_job]

  @property
  def _layers(self) -> tuple[int, ...]:
    return options_lib.parse_layers(self.options.layers)

  def layers(self, job: int) -> tuple[int, ...]:
    """Returns the layers of a job."""
    first = self._layers.index(job)
    return self._layers[first : first + self.options.layers_per_job]

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

  def label(self, job: int) -> str:
    """Returns the value of a job's label: its layer, or the first and last."""
    last = self.layers(job)[-1]
    return str(job) if last == job else f'{job}-{last}'

  def name(self, job: int) -> str:
    """Returns the name of a job, the same on every target."""
    return f'{self.options.run}-l{job:02d}'

  def run_dir(self, job: int) -> str:
    """Returns the run directory of a job."""
    last = self.layers(job)[-1]
    name = f'layer_{job:02d}'
    if last != job:
      name = f'layers_{job:02d}-{last:02d}'
    return f'{self.options.out.rstrip("/")}/{self.options.run}/{name}'

  def command(self, job: int) -> list[str]:
    """Returns the trainer's argv, the same on a laptop and on a pod."""
    layers = self.layers(job)
    flag = 'layer' if len(layers) == 1 else 'layers'
    return [
        'python',
        '-m',
        'jumprelu.run.main',
        'train',
        f'--out={self.run_dir(job)}',
        f'--{flag}={",".join(map(str, layers))}',
        *self.trainer_flags,
    ]
