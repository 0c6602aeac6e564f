"""Reader of the members of our own releases, described by config.json."""

from collections.abc import Mapping
import pathlib
from typing import Any

from jumprelu import errors, lm
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
  _check(config, training, where=folder / layout.CONFIG)
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


def _check(
    config: Mapping[str, Any], training: Any, *, where: pathlib.Path
) -> None:
  """Raises DataError if a field of the origin has a wrong type or value."""
  if not isinstance(training, Mapping):
    raise errors.DataError(f'{where}: training is not an object')
  wrong = {
      'model': not isinstance(training.get('model', config['model']), str),
      'layer': type(config['layer']) is not int or config['layer'] < 0,
      'site': config['site'] not in list(lm.SITES),
      'input_gain': config.get('input_gain') not in (None, True, False),
  }
  for name, is_wrong in wrong.items():
    if is_wrong:
      raise errors.DataError(
          f'{where}: {name} has a wrong type or value; restore the file from a'
          ' copy'
      )
