"""Members that are added to a run (`jumprelu train --add`).

They are trained in a run directory of their own, `added/NUMBER` of the run
directory, on the blocks and with the scales of the run. Files of the run are
not changed. Whatever reads the run, such as `jumprelu release`, reads the added
members, too (`folder_kinds.added_runs`).
"""

from collections.abc import Mapping, Sequence
import os
from typing import Any

from jumprelu import errors
from jumprelu.activations import scales as scales_lib
from jumprelu.files import dotted, folder_kinds
from jumprelu.training import config as config_lib
from jumprelu.training import resume, run_dir, suite

# The fields that may differ between the members of a run. Parts end with a dot.
_OF_MEMBERS = (
    'sites',
    'widths',
    'variants',
    'sparsity_coefficients',
    'target_l0',
    'seeds',
    'input_gain',
    'init_from',
    'sae.',
    'optim.',
)


def added(
    before: config_lib.TrainConfig, changes: Mapping[str, Any]
) -> config_lib.TrainConfig:
  """Returns the config of members that are added to a run.

  Args:
    before: The config of the run.
    changes: The changes by dotted path. The added members are all combinations
      of these values and those of `before`. Target L0s replace the sparsity
      coefficients of `before`, and the reverse.

  Raises:
    UserError: a change is invalid, or its field must be that of the run.
  """
  other = [
      path
      for path in changes
      if not dotted.is_among(path, (*_OF_MEMBERS, *resume.SOFT))
      and dotted.leaves(before)[path].value != changes[path]
  ]
  if other:
    raise errors.UserError(
        f'--add: --{other[0]} must be that of the run,'
        f' {dotted.leaves(before)[other[0]].value!r}; leave it out'
    )
  values = dict(changes)
  for axis, other_axis, penalty in (
      ('target_l0', 'sparsity_coefficients', 'target_l0'),
      ('sparsity_coefficients', 'target_l0', 'l0'),
  ):
    if changes.get(axis) and other_axis not in changes:
      variants = values.get('variants', before.variants)
      values = {
          other_axis: (),
          **_penalties(before, variants, penalty),
          **values,
      }
  return dotted.replace(before, values)


def _penalties(
    before: config_lib.TrainConfig, variants: Sequence[str], penalty: str
) -> dict[str, str]:
  """Returns the fields of variants whose penalty is one of L0."""
  leaves = dotted.leaves(before)
  paths = [f'sae.{variant}.penalty' for variant in variants]
  return {
      path: penalty
      for path in paths
      if path in leaves and leaves[path].value in ('l0', 'target_l0')
  }


def directory_of(
    run: str | os.PathLike[str], config: config_lib.TrainConfig
) -> str:
  """Returns the run directory of added members, which may exist already.

  No device is used.

  Args:
    run: The run directory to which they are added.
    config: The result of `added`.

  Raises:
    UserError: one of the members is in the run already.
    MissingInputError: the run has not started, so it has no scales.
  """
  if not run_dir.read_suite(run).get('scales'):
    raise errors.MissingInputError(
        f'{run}: the run has no scales yet; start it without --add first'
    )
  folders = folder_kinds.added_runs(run)
  for folder in folders:
    if not resume.differences(run_dir.read_config(folder), config):
      return str(folder)
  names = {(m.layer, suite.member_name(m)) for m in config_lib.members(config)}
  for folder in (run, *folders):
    for member in config_lib.members(run_dir.read_config(folder)):
      if (member.layer, suite.member_name(member)) in names:
        raise errors.UserError(
            f'--add: {folder} has the member {suite.member_name(member)}'
            ' already; name added values only'
        )
  number = max((int(folder.name) for folder in folders), default=0) + 1
  return os.path.join(run, folder_kinds.ADDED, str(number))


def shared_scales(
    record: Mapping[str, Any],
    origin: resume.Origin,
) -> scales_lib.Scales:
  """Returns the scales of a run for members that are added to it.

  Args:
    record: The content of the run's suite.json.
    origin: The digests of the added members' text and model.

  Raises:
    UserError: the run's text or language model is another one.
  """
  if not origin.is_recorded_in(record):
    raise errors.UserError(
        '--add: the run was trained on other text, or with another language'
        ' model or --lm_dtype; use those of the run'
    )
  return scales_lib.from_json(record)
