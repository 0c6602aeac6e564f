"""What a run has left: its members, from its newest verified checkpoint."""

import os
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, lm, saes
from jumprelu.files import formats
from jumprelu.training import checkpoint, run_dir, suite
from jumprelu.training import config as config_lib


class TrainedMember(NamedTuple):
  """One member of a finished or interrupted run, on the host."""

  member: suite.Member
  sae: saes.base.Sae
  params: dict[str, np.ndarray]
  # What its inputs and targets were divided by in training.
  input_scale: float
  target_scale: float
  # The checkpoint's: step, tokens_trained, config, versions, ...
  meta: dict[str, Any]


def make_suite(
    config: config_lib.TrainConfig,
) -> tuple[suite.Group, ...]:
  """The groups of a config's suite; needs no model and no device."""
  return suite.make_groups(
      config_lib.members(config),
      configs=config.variant_configs(),
      d_site=lm.get_config(config.model).d_site,
  )


def by_site(scales: dict[str, float]) -> dict[lm.Site, float]:
  """Reads the scales that a run has stored as JSON."""
  return {lm.Site(site): scale for site, scale in scales.items()}


def latest(
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    abstract_state: Any,
) -> tuple[Any, dict[str, Any]] | None:
  """Returns a run's newest verified state and its meta in today's format."""
  restored = checkpointer.latest_verified(abstract_state)
  if restored is None:
    return None
  state, meta = restored
  where = str(directory.checkpoints / str(meta['step']))
  return state, formats.migrate(formats.Kind.CHECKPOINT, meta, where=where)


def load_suite(out: str | os.PathLike[str]) -> list[TrainedMember]:
  """Reads the newest verified checkpoint of a run, member by member.

  Raises:
    MissingInputError: there is no run, or no checkpoint in it.
    DataError: none of its checkpoints verifies.
  """
  directory = run_dir.RunDir(out)
  config = directory.read_config()
  groups = make_suite(config)
  found = None
  if directory.checkpoints.exists():
    with checkpoint.Checkpointer(
        directory.checkpoints, config.checkpoint
    ) as checkpointer:
      found = latest(directory, checkpointer, suite.stored_state(groups))
  if found is None:
    raise errors.MissingInputError(
        f'{directory.path}: no checkpoint yet; let `jumprelu train` run longer'
    )
  state, meta = found
  scales = by_site(meta['scales'])
  members = []
  for group in groups:
    params = jax.device_get(state.groups[group.name].params)
    for index, member in enumerate(group.members):
      members.append(
          TrainedMember(
              member,
              group.sae,
              {name: np.array(x[index]) for name, x in params.items()},
              scales[group.input_site],
              scales[group.target_site],
              meta,
          )
      )
  return members
