"""The page of a release: its features, results and training curves."""

from collections.abc import Collection, Mapping
import pathlib

from jumprelu import errors
from jumprelu.evals import results
from jumprelu.explore import page_data, training_curves
from jumprelu.features import reading
from jumprelu.release.formats import record


def data(
    release: pathlib.Path,
    features: pathlib.Path,
    *,
    members: Collection[str] | None = None,
    run: pathlib.Path | None = None,
) -> page_data.PageData:
  """Returns the data of the page of a release, or of published SAEs.

  Args:
    release: The folder of the SAEs.
    features: The folder of their features.
    members: The paths of the page's members; all if None.
    run: The run directory, for training curves.
  """
  path = release / 'results.jsonl'
  rows = results.read(path) if path.exists() else []
  # The last two parts, because a shared page should not show the folders of the
  # machine that wrote it.
  title = '/'.join(release.absolute().parts[-2:])
  curves = training_curves.read(run, rows) if run else []
  return page_data.collect(
      features, title=title, members=members, results=rows, curves=curves
  )


def check_features(
    folder: pathlib.Path, released: Mapping[str, record.Released]
) -> None:
  """Refuses features of other SAEs.

  Args:
    folder: The folder of features.
    released: The SAEs by path.

  Raises:
    UserError: An SAE has no features in the folder, or has changed since.
  """
  members = reading.read_manifest(folder)['members']
  known = {member['path']: member['sha256'] for member in members}
  for path, sae in released.items():
    if path not in known:
      problem = f'no features of {path}'
    elif known[path] != sae.digest():
      problem = f'{path} has changed since its features were collected'
    else:
      continue
    raise errors.UserError(
        f'{folder}: {problem}; collect them again with: jumprelu features'
        ' --release=DIR --out=DIR2'
    )
