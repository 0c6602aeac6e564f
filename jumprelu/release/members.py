"""Read the members of a release: digests, descriptions, arrays.

Nothing in a release is trusted: names are checked before they are opened and
headers before data. What the numbers must fulfil is in `verify.py`.
"""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, saes
from jumprelu.files import folder_kinds, formats, json_files, npz
from jumprelu.release import layout
from jumprelu.saes import base

# Of config.json; a member without them cannot be rebuilt.
_REQUIRED = (
    'model', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'target_l0', 'seed', 'sae', 'sha256', 'test_vectors',
)  # fmt: skip


def list_members(release: str | os.PathLike) -> list[str]:
  """Return the members' folders, relative to the release, in stored order."""
  return [m['path'] for m in read_suite(release)['members']]


def read_suite(release: str | os.PathLike) -> dict:
  """Read suite.json, with every path in it checked to lie inside."""
  folder_kinds.want_release(release)
  path = pathlib.Path(release) / layout.SUITE
  suite = formats.migrate(
      formats.Kind.RELEASE_SUITE, json_files.read_json(path), where=str(path)
  )
  try:
    for member in suite['members']:
      layout.check_relative(member['path'])
      for name in member['files']:
        if name not in layout.MEMBER_FILES:
          raise errors.DataError(f'{path}: unexpected file {name!r}')
    for name in suite['files']:
      layout.check_relative(name)
  except (KeyError, TypeError, AttributeError) as e:
    raise errors.DataError(f'{path}: incomplete ({e!r})') from e
  if not suite['members']:
    raise errors.DataError(f'{path}: lists no member')
  return suite


def load_member(
    path: str | os.PathLike,
) -> tuple[base.Sae, dict[str, jax.Array], dict]:
  """Load (sae, params, config) of one member: its folder or its params.npz."""
  path = pathlib.Path(path)
  folder = path.parent if path.name == layout.PARAMS else path
  folder_kinds.want_member(folder)
  sae, params, config = read_member(folder)
  return sae, {k: jnp.asarray(v) for k, v in params.items()}, config


def read_member(
    folder: pathlib.Path,
) -> tuple[base.Sae, dict[str, np.ndarray], dict]:
  """Read a member's arrays with the shapes that its config implies."""
  if not folder.is_dir():
    raise errors.MissingInputError(f'{folder}: no such member')
  config = formats.migrate(
      formats.Kind.RELEASE_MEMBER,
      json_files.read_json(folder / layout.CONFIG),
      where=str(folder / layout.CONFIG),
  )
  missing = [k for k in _REQUIRED if k not in config]
  if missing:
    raise errors.DataError(
        f'{folder / layout.CONFIG}: lacks {", ".join(missing)}'
    )
  sae = _make_sae(folder / layout.CONFIG, config['variant'], config['sae'])
  shapes = jax.eval_shape(
      lambda: sae.init_params(jax.random.key(0), initial_threshold=1.0)
  )
  params = npz.read_npz(
      folder / layout.PARAMS, {k: v.shape for k, v in shapes.items()}
  )
  return sae, params, config


def _make_sae(where, variant, fields) -> base.Sae:
  try:
    _, make_config = saes.VARIANTS[variant]
    if min(fields['d_in'], fields['d_out'], fields['width']) < 1:
      raise ValueError('a size below 1')
    # JSON knows no tuples.
    config: Any = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in fields['config'].items()
    }
    return saes.make_sae(
        variant,
        make_config(**config),
        d_in=int(fields['d_in']),
        d_out=int(fields['d_out']),
        width=int(fields['width']),
        transcoder=bool(fields['transcoder']),
        # Earlier releases had no skip terms.
        skip=bool(fields.get('skip', False)),
    )
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.DataError(f'{where}: describes no known SAE ({e!r})') from e
