"""Completes the origins of SAEs with values from flags."""

from collections.abc import Mapping
import dataclasses

from jumprelu import errors
from jumprelu.release.formats import record


def complete(
    released: Mapping[str, record.Released], overrides: record.Origin
) -> dict[str, record.Released]:
  """Returns the SAEs with complete origins.

  Args:
    released: SAEs by path.
    overrides: The flags. The model replaces the one that an SAE was trained on;
      other values must agree with those of the files.

  Raises:
    UserError: a flag is missing or contradicts the files; the message names the
      SAE and the flag.
  """
  return {
      path: _complete(path, sae, overrides) for path, sae in released.items()
  }


def model_of(released: Mapping[str, record.Released]) -> str:
  """Returns the model on which all SAEs are evaluated.

  Raises:
    UserError: the SAEs are of several models.
  """
  models = {sae.origin.model: path for path, sae in released.items()}
  if len(models) > 1:
    raise errors.UserError(
        f'SAEs of several models ({", ".join(map(str, models))}): set --model,'
        ' or use the folder of a single model'
    )
  return str(next(iter(models)))


def _complete(
    path: str, sae: record.Released, overrides: record.Origin
) -> record.Released:
  origin = overrides.over(sae.origin)
  for name in ('layer', 'site', 'input_gain'):
    stated = getattr(sae.origin, name)
    if stated not in (None, getattr(origin, name)):
      raise errors.UserError(
          f'--{name}={getattr(overrides, name)}: {path} is of {name} {stated}'
      )
  needed = ['model', 'layer', 'site']
  if origin.site == 'transcoder':
    needed.append('input_gain')
  missing = [f'--{n}' for n in needed if getattr(origin, n) is None]
  if missing:
    raise errors.UserError(
        f"{path}: the SAE's input is not named by its files or folders: set"
        f' {", ".join(missing)}'
    )
  if origin.site != 'transcoder' and sae.sae.skip:
    raise errors.UserError(
        f'{path}: has a skip term, which is for transcoders only; its site is'
        f' {origin.site}'
    )
  return dataclasses.replace(sae, origin=origin)
