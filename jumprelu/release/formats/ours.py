"""Reader of the members of our own releases, described by config.json."""

import pathlib

from jumprelu.release import layout, members
from jumprelu.release.formats import record


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether the folder holds params.npz and config.json."""
  return all(
      (folder / name).is_file() for name in (layout.PARAMS, layout.CONFIG)
  )


def read(folder: pathlib.Path) -> record.Released:
  """Reads one member.

  Raises:
    MissingInputError: a file is missing.
    DataError: a file is damaged; the message names it.
  """
  sae, params, config = members.read_member(folder)
  training = config.get('training') or {}
  return record.Released(
      sae,
      params,
      record.Origin(
          model=training.get('model', config['model']),
          layer=config['layer'],
          site=config['site'],
          input_gain=config.get('input_gain'),
      ),
      members.result_columns(config),
      training,
      members.norm_limits(config, where=folder / layout.CONFIG),
  )
