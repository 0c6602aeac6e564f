"""Members of a release of ours: config.json says what they are."""

from collections.abc import Mapping
import pathlib
from typing import Any

from jumprelu.release import layout, members
from jumprelu.release.formats import record

# Fields of config.json that stand in a row of results.
_META = (
    'variant',
    'sparsity_coefficient',
    'target_l0',
    'seed',
    'tokens_trained',
)


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether a member's two main files lie there."""
  return all(
      (folder / name).is_file() for name in (layout.PARAMS, layout.CONFIG)
  )


def read(folder: pathlib.Path) -> record.Released:
  """Reads one member; errors as of `members.read_member`."""
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
      {name: config.get(name) for name in _META} | _unfinished(config),
      training,
  )


def _unfinished(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns where the member's run was stopped; nothing if it has ended."""
  stop = config.get('unfinished')
  return {'unfinished': str(stop)} if stop else {}
