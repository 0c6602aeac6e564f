"""Suites, loaded from any folder that holds SAEs."""

import dataclasses
import os
import pathlib
import sys
from typing import Any

from jumprelu import errors
from jumprelu.api.sae import SAE
from jumprelu.api.suite import Suite
from jumprelu.files import folder_kinds, json_files
from jumprelu.release import formats, layout
from jumprelu.release.formats import record

Results = dict[str, dict[str, Any]]

# A larger integer has no float.
_LARGEST = sys.float_info.max


def load(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    layer: int | None = None,
    site: str | None = None,
    input_gain: bool | None = None,
) -> Suite:
  """Returns the SAEs of a release, a run, published files, or one npz.

  Releases and runs of this package, Gemma Scope, Gemma Scope 2, SAELens,
  dictionary_learning and circuit-tracer are recognised by their files; no file
  is unpickled. Model, layer and site come from the files or from
  the names of the folders. Members of a run have the paths that
  `read_metrics` names them by, the parameters of the newest checkpoint, and
  the L0 of training at that step.

  Args:
    path: A folder with SAEs below it, one SAE's folder, or its params.npz.
    model: The language model, instead of the one that the files name.
    layer: The layer, if the files do not name it.
    site: The site, if the files do not name it.
    input_gain: Whether a transcoder reads the norm's output with its gain, if
      the files do not contain this.

  Raises:
    MissingInputError: There is no SAE.
    DataError: A file is damaged; the message names it.
    UserError: An argument contradicts the files.

  >>> suite = jumprelu.load('jumprelu_demo/release')
  >>> suite
  jumprelu_demo/release: 12 SAEs
  path                                        site        layer  width ...
  resid_post/layer_2/width_512/average_l0_44  resid_post  2      512 ...
  resid_post/layer_2/width_512/average_l0_28  resid_post  2      512 ...
  ...
  """
  stated = record.Origin(model, layer, site, input_gain)
  path = pathlib.Path(path).expanduser()
  if path.is_file() and path.suffix not in ('.npz', '.safetensors', '.pt'):
    raise errors.UserError(f'{path}: holds no SAE; pass its folder')
  folder = path.parent if path.is_file() else path
  if folder_kinds.is_run(folder):
    released, results = _of_run(folder)
  else:
    released = formats.find(folder)
    results = {name: _results(folder / name) for name in released}
  saes = {}
  for name, member in released.items():
    shown = folder.name if name == '.' else name
    origin = _merged(shown, stated, member.origin)
    member = dataclasses.replace(member, origin=origin)
    saes[shown] = SAE(member, path=shown, results=results.get(name))
  return Suite(saes, name=str(path))


def _merged(
    name: str, arguments: record.Origin, files: record.Origin
) -> record.Origin:
  for field in ('layer', 'site', 'input_gain'):
    wanted, known = getattr(arguments, field), getattr(files, field)
    if None not in (wanted, known) and wanted != known:
      raise errors.UserError(f'{field}={wanted!r}: {name} is of {known!r}')
  return arguments.over(files)


def _results(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the row of results of a member of our own releases, else {}."""
  path = folder / layout.RESULTS
  results = json_files.read_json(path, missing_ok=True)
  l0 = results.get('l0')
  if not isinstance(l0, int | float | None) or abs(l0 or 0) > _LARGEST:
    raise errors.DataError(f'{path}: l0 is {str(l0)[:20]}, wanted a number')
  return results


def _of_run(
    folder: pathlib.Path,
) -> tuple[dict[str, record.Released], Results]:
  """Returns the members of a run, with scales folded in, and their metrics."""
  # Imported here because releases can be loaded without the training extra.
  from jumprelu import extras

  extras.check('train')
  from jumprelu.files import dotted
  from jumprelu.release import publish
  from jumprelu.training import load_run

  members = load_run.load_suite(folder)
  steps = {m.name: m.meta['step'] for m in members}
  metrics = _last_metrics(folder, steps)
  released, results = {}, {}
  for member, (sae, params) in zip(members, publish.fold(members), strict=True):
    reads, config = member.reads, member.config
    assert config is not None  # `load_suite` sets it.
    name = member.name
    origin = record.Origin(
        config.model, reads.layer, reads.name, reads.stated_input_gain
    )
    meta = {
        'sparsity_coefficient': member.member.sparsity_coefficient,
        'target_l0': member.member.target_l0,
        'seed': member.member.seed,
        'steps': member.meta['step'],
    }
    released[name] = record.Released(
        sae, params, origin, meta, dotted.to_dict(config), reads.limits
    )
    results[name] = metrics.get(name, {})
  return released, results


def _last_metrics(folder: pathlib.Path, steps: dict[str, int]) -> Results:
  """Returns each member's metrics of the last segment that ends by its step.

  A run that was killed may have metrics of later steps than its checkpoint.
  """
  from jumprelu.training import metrics_file

  try:
    rows = metrics_file.read(folder)
  except errors.MissingInputError:
    return {}
  return {
      row['member']: {
          f'training_{name}': row[name] for name in ('l0', 'fvu', 'dead_share')
      }
      for row in rows
      if row['step'] <= steps.get(row['member'], 0)
  }
