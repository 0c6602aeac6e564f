"""Checks that features were collected from the SAEs of a release."""

from collections.abc import Mapping
import pathlib

from jumprelu import errors
from jumprelu.features import collect, reading
from jumprelu.release.formats import record


def check(
    folder: pathlib.Path, released: Mapping[str, record.Released]
) -> None:
  """Refuses features of other SAEs.

  Args:
    folder: The folder of features.
    released: The SAEs by path.

  Raises:
    UserError: An SAE has no features in the folder, or has changed since.
  """
  known = {
      m['path']: m['sha256'] for m in reading.read_manifest(folder)['members']
  }
  for path, sae in released.items():
    if path not in known:
      problem = f'no features of {path}'
    elif known[path] != collect.digest(sae.params):
      problem = f'{path} has changed since its features were collected'
    else:
      continue
    raise errors.UserError(
        f'{folder}: {problem}; collect them again with: jumprelu features'
        ' --release=DIR --out=DIR2'
    )
