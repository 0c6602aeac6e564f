"""Lines that a run prints before its first step."""

from collections.abc import Callable

import jax

from jumprelu.files import dotted, wording
from jumprelu.training import backends, recipes, run_dir
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib


def announce(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    step: int,
    *,
    on_phase: Callable[[str], None],
) -> None:
  """Announces the start at a step, and the values of an adaptive recipe."""
  on_phase(_start_line(job, directory, step))
  if line := recipe_line(job.config):
    on_phase(line)


def _start_line(job: job_lib.Job, directory: run_dir.RunDir, step: int) -> str:
  """Returns the line about directory, members, backends and checkpoints."""
  config = job.config
  chosen = {
      backends.choose(config.backend, group, job.mesh) for group in job.groups
  }
  members = sum(len(group.members) for group in job.groups)
  every = config.stream.batches * config.checkpoint.every_blocks
  checkpoint_step = min(step - step % every + every, config.steps)
  start = f'new run of {wording.count(config.steps, "step")}'
  if step:
    start = f'resuming at step {step:,} of {config.steps:,}'
  return (
      f'{directory.path}: {start}, {wording.count(members, "SAE")} in'
      f' {wording.count(len(job.groups), "group")}, backend {", ".join(sorted(chosen))}, first'
      f' checkpoint at step {checkpoint_step:,}'
  )


def recipe_line(config: config_lib.TrainConfig) -> str:
  """Returns a line with the values that a recipe adapts to a run's length.

  The values are those of the config, which flags may have changed. The line is
  empty for recipes that do not adapt to the length of a run.
  """
  paths = recipes.by_steps(config.recipe, config.steps)
  if not paths:
    return ''
  leaves = dotted.leaves(config)
  values = ', '.join(f'{path}={leaves[path].value:g}' for path in paths)
  return f'recipe {config.recipe} at {config.steps:,} steps: {values}'


def estimating(config: config_lib.TrainConfig) -> str:
  """Returns the line before the scales are estimated."""
  tokens = config.stream.scale_tokens
  return f'estimating the scales of activations from {tokens:,} tokens'


def compiling(work: str = 'training') -> str:
  """Returns the line before the first step of a kind of work."""
  folder = jax.config.jax_compilation_cache_dir
  where = f' (programs are kept in {folder})' if folder else ''
  return f'compiling, then {work}{where}'
