"""Format numbers of the files of runs, releases and stores.

A file holds the number of its format and the version of this package that
wrote it. A file of an older format is migrated when it is read, from each
format to the next. A file of a newer format is refused. Files are always
written in the newest format of their kind.

To change the format of a kind of file, write a function that migrates the old
format to the new one, and add it to the kind's row of `MIGRATIONS`:

    Kind.TRAIN_CONFIG: {1: _backend_of_path},

The key is the old format. The newest format is one more than the last key. The
function maps the file's whole object to a new one. It must not call code that
may change later, because old files never change.
"""

from collections.abc import Callable, Mapping, Sequence
import copy
import enum
from typing import Any

import jumprelu
from jumprelu import errors

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _backend_of_path(config: dict[str, Any]) -> dict[str, Any]:
  """Renames the field `path` to `backend`."""
  return {
      'backend' if name == 'path' else name: value
      for name, value in config.items()
  }


def _with_options(config: dict[str, Any]) -> dict[str, Any]:
  """Adds the options of scales and updates that earlier versions lacked."""
  added = {
      'stream': {'center': False, 'max_norm': 0.0},
      'optim': {'update_clip': 0.0},
  }
  parts = {
      name: {**config[name], **options}
      for name, options in added.items()
      if name in config
  }
  return config | parts


def _with_init_from(config: dict[str, Any]) -> dict[str, Any]:
  """Adds the source of initial parameters that earlier versions lacked."""
  return {'init_from': ''} | config


def _with_bad_rows(config: dict[str, Any]) -> dict[str, Any]:
  """Adds the share of bad rows; earlier versions skipped none."""
  if 'corpus' not in config:
    return config
  return config | {'corpus': {**config['corpus'], 'max_bad_rows': 0.0}}


def _with_layers(config: dict[str, Any]) -> dict[str, Any]:
  """Adds the list of layers and the skip term, which earlier runs lacked."""
  return {'layers': [], 'affine_skip': False} | config


class Kind(enum.Enum):
  """The kinds of file; the values are their names in error messages."""

  # config.json of a run, or a field in files of other kinds (`_NESTED`).
  TRAIN_CONFIG = 'training config'
  RUN_SUITE = "run's suite"
  CHECKPOINT = 'checkpoint'
  RELEASE_SUITE = 'release'
  RELEASE_MEMBER = 'release member'
  STORE = 'store'
  FEATURES = 'folder of features'
  EXPLANATIONS = 'set of explanations'


def _layer_in_scales(suite: dict[str, Any]) -> dict[str, Any]:
  """Keys the scales by layer and site, and adds the layer to each member."""
  layer = suite['layer']
  members = [{**member, 'layer': layer} for member in suite['members']]
  return suite | {
      'scales': _by_tap(layer, suite['scales']),
      'members': members,
  }


def _layer_in_checkpoint_scales(meta: dict[str, Any]) -> dict[str, Any]:
  """Keys the scales by layer and site."""
  layer = meta['config']['layer']
  return meta | {'scales': _by_tap(layer, meta['scales'])}


def _layer_in_arrays(manifest: dict[str, Any]) -> dict[str, Any]:
  """Adds the folder of each array, and keys the scales by layer and site.

  The layer is removed from the store's identity, because the names of the
  arrays now hold it.
  """
  identity = dict(manifest['identity'])
  layer = identity.pop('layer')
  sites = manifest['geometry']['widths']
  manifest = manifest | {
      'identity': identity,
      'arrays': _by_tap(layer, {site: site for site in sites}),
  }
  if 'scales' in manifest:
    manifest['scales'] = _by_tap(layer, manifest['scales'])
  return manifest


def _by_tap(layer: int, by_site: dict[str, Any]) -> dict[str, Any]:
  return {f'layer_{layer}.{site}': value for site, value in by_site.items()}


# Kind of file -> {format: function from that format to the next}.
MIGRATIONS: dict[Kind, dict[int, Migration]] = {
    Kind.TRAIN_CONFIG: {
        1: _backend_of_path,
        2: _with_options,
        3: _with_init_from,
        4: _with_bad_rows,
        5: _with_layers,
    },
    Kind.RUN_SUITE: {1: _layer_in_scales},
    # The third format has the counters `failing`, which are read as zeros from
    # older ones.
    Kind.CHECKPOINT: {1: _layer_in_checkpoint_scales, 2: dict},
    Kind.RELEASE_SUITE: {},
    Kind.RELEASE_MEMBER: {},
    # In the third format, the digests of all rows are compared, and chunks have
    # no checksums. Geometries without the field `crc32c` are of earlier stores.
    Kind.STORE: {1: _layer_in_arrays, 2: dict},
    Kind.FEATURES: {},
    Kind.EXPLANATIONS: {},
}

# The field of each kind that holds a training config, which has a format number
# of its own.
_NESTED = {Kind.CHECKPOINT: 'config', Kind.RELEASE_MEMBER: 'training'}

_NUMBER, _WRITER = 'format', 'writer'
# Older files have a name instead of a number in the field `format`.
_NAMES = {'jumprelu-release-1': 1}


def newest(kind: Kind) -> int:
  """Returns the number of the format that this version writes."""
  return max(MIGRATIONS[kind], default=0) + 1


def stamp(kind: Kind) -> dict[str, Any]:
  """Returns the fields that name a file's format and its writer."""
  return {_NUMBER: newest(kind), _WRITER: jumprelu.__version__}


def layer_fields(layers: Sequence[int]) -> dict[str, Any]:
  """Returns the field of a file with its layer, or with its layers if several.

  Earlier versions wrote files of one layer only.
  """
  return {'layer': layers[0]} if len(layers) == 1 else {'layers': list(layers)}


def migrate(
    kind: Kind, value: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
  """Returns the contents of a file in the newest format, without its stamp.

  Args:
    kind: The kind of file.
    value: The object in the file, which is not modified.
    where: The file, for error messages.

  Raises:
    DataError: The format is unknown or newer than this version, or the object
      does not fit its format.
  """
  number = check(kind, value, where=where)
  result = copy.deepcopy(dict(value))
  for name in (_NUMBER, _WRITER):
    result.pop(name, None)
  try:
    # A nested config is migrated after this loop, because the migrations in the
    # loop were written for nested configs of their own time.
    for step in range(number, newest(kind)):
      result = MIGRATIONS[kind][step](result)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.DataError(
        f'{where}: not a valid {kind.value} of format {number} ({error!r});'
        ' restore the file from a copy'
    ) from error
  field = _NESTED.get(kind)
  if field and isinstance(result.get(field), Mapping):
    result[field] = migrate_train_config(
        result[field], where=f'{where}: {field}'
    )
  return result


def migrate_train_config(
    config: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
  """Returns a stored training config in the newest format; see `migrate`."""
  return migrate(Kind.TRAIN_CONFIG, config, where=where)


def check(kind: Kind, value: Mapping[str, Any], *, where: str) -> int:
  """Returns the number of a file's format; a file without one has format 1.

  Args:
    kind: The kind of file.
    value: The object in the file.
    where: The file, for error messages.

  Raises:
    DataError: The format is unknown or newer than this version.
  """
  number = value.get(_NUMBER, 1)
  if isinstance(number, str):
    number = _NAMES.get(number, number)
  if type(number) is not int or number < 1:
    raise errors.DataError(
        f'{where}: {_NUMBER} {number!r} is not a format of a {kind.value};'
        ' restore the file from a copy'
    )
  if number > newest(kind):
    writer = value.get(_WRITER)
    known = isinstance(writer, str) and writer != jumprelu.__version__
    cure = f'jumprelu >= {writer}' if known else 'a newer jumprelu'
    raise errors.DataError(
        f'{where}: a {kind.value} of format {number}, written by jumprelu'
        f' {writer or "of unknown version"}; jumprelu {jumprelu.__version__}'
        f' reads formats up to {newest(kind)}: install {cure}'
    )
  return number
