"""The suite of a run: its groups from the config, or its trained members."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, lm, saes
from jumprelu.activations import scales as scales_lib
from jumprelu.files import folder_kinds, formats
from jumprelu.training import config as config_lib
from jumprelu.training import suite


class TrainedMember(NamedTuple):
  """One member of a finished or interrupted run, on the host."""

  member: suite.Member
  sae: saes.base.Sae
  params: dict[str, np.ndarray]
  reads: lm.Reads
  # In training, inputs and targets were divided by these numbers.
  input_scale: float
  target_scale: float
  # The record of the checkpoint: step, counts, config, scales, environment, ...
  meta: dict[str, Any]
  # The number of steps without an update of this member, because its loss or
  # gradients were not finite.
  steps_skipped: int = 0
  # Whether the member kept failing and was frozen.
  frozen: bool = False
  # The config of the run, or that of added members; None if it is unknown.
  config: config_lib.TrainConfig | None = None
  # The name in files of metrics.
  name: str = ''


def make_suite(
    config: config_lib.TrainConfig,
    widths: Mapping[lm.Site, int] | None = None,
) -> tuple[suite.Group, ...]:
  """Returns the groups of a config's suite, without weights or devices.

  Args:
    config: The config of the run.
    widths: The width of the activations at each site, by default from the
      config of the language model.
  """
  if widths is None:
    d_site = lm.get_config(config.model).d_site
  else:
    d_site = widths.__getitem__
  return suite.make_groups(
      config_lib.members(config),
      configs=config.variant_configs(),
      d_site=d_site,
      input_gain=config.input_gain,
      affine_skip=config.affine_skip,
  )


def migrated_meta(
    checkpoints: os.PathLike[str], meta: dict[str, Any]
) -> dict[str, Any]:
  """Returns the record of a checkpoint, migrated to the current format.

  Args:
    checkpoints: The directory of the checkpoints, for error messages.
    meta: The record, in the current or an older format.

  Raises:
    DataError: the format is newer than this version.
  """
  where = os.path.join(checkpoints, str(meta['step']))
  return formats.migrate(formats.Kind.CHECKPOINT, meta, where=where)


def load_suite(out: str | os.PathLike[str]) -> list[TrainedMember]:
  """Returns the members of a run, from its newest verified checkpoint.

  Members that were added to the run follow, from checkpoints of theirs. No file
  is changed, so that a run can be loaded while it trains.

  Raises:
    MissingInputError: the directory holds no run, or the run has no checkpoint.
    UserError: the directory is a release, or its config is invalid.
    DataError: no checkpoint verifies, or a file is of a newer format.
  """
  # Imported here because planning needs `make_suite`, but not orbax.
  from jumprelu.training import backends, checkpoint_reading, run_dir

  directory = run_dir.RunDir(out)
  config = directory.read_config()
  # Older versions did not record widths.
  widths = directory.read('suite.json').get('d_site')
  if widths is not None:
    widths = {lm.Site(site): width for site, width in widths.items()}
  groups = make_suite(config, widths)
  restored = checkpoint_reading.restore(
      directory.checkpoints, suite.stored_state(groups)
  )
  if restored is None:
    raise errors.MissingInputError(
        f'{directory.path}: no checkpoint yet; let `jumprelu train` run longer'
    )
  state = restored.state
  meta = migrated_meta(directory.checkpoints, restored.meta)
  scales = scales_lib.from_json(meta)
  members = []
  for group in groups:
    taps = group.reads.taps
    limits = tuple((t, scales.limits[t]) for t in taps if t in scales.limits)
    trained = state.groups[group.name]
    params, skipped, frozen = jax.device_get(
        (trained.params, trained.skipped, backends.is_frozen(trained.failing))
    )
    named = zip(suite.names(group), group.members, strict=True)
    for index, (name, member) in enumerate(named):
      members.append(
          TrainedMember(
              member,
              group.sae,
              {key: np.array(x[index]) for key, x in params.items()},
              dataclasses.replace(group.reads, limits=limits),
              scales[group.reads.input],
              scales[group.reads.target],
              meta,
              int(skipped[index]),
              bool(frozen[index]),
              config,
              name,
          )
      )
  for folder in folder_kinds.added_runs(directory.path):
    members += load_suite(folder)
  return members
