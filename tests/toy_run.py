"""Runs of the toy suite, and the newest checkpoint of one."""

import pathlib

import jax

from jumprelu.training import checkpoint_reading, run_dir, suite, train
from tests import toy_suite


def run(
    out,
    *,
    stop=(),
    mesh=None,
    table=None,
    job=None,
    watch=train.QUIET,
    **changes
):
  job = job or toy_suite.make_job(
      toy_suite.make_config(**changes), mesh=mesh, table=table
  )
  directory = run_dir.RunDir(out)
  seen = []
  with directory.claim(job.config):
    outcome = train.run(
        job,
        directory,
        should_stop=lambda step: step in stop,
        watch=watch._replace(on_progress=seen.append),
    )
  return outcome, seen


def state(out, config=None):
  """Returns the newest checkpoint, with its state on the host."""
  config = config or toy_suite.make_config()
  stored = suite.stored_state(toy_suite.make_groups(config))
  path = pathlib.Path(out) / 'checkpoints'
  restored = checkpoint_reading.restore(path, stored)
  return jax.device_get(restored.state), restored.meta
