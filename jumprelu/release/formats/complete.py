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
    overrides: The values of the flags. The model may differ from the one that
      an SAE was trained on, and replaces it. All other values must agree with
      those that an SAE's files or folders state.

  Raises:
    UserError: a flag is missing or contradicts the files, or an SAE that is not
      a transcoder has a skip term. The message names the SAE and the flag.
  """
  return {
      path: _complete(path, sae, overrides) for path, sae in released.items()
  }


def model_of(released: Mapping[str, record.Released]) -> str:
  """Returns the model of all SAEs, whose origins must be complete.

  Raises:
    UserError: the SAEs were trained on different models.
  """
  models = {sae.origin.model: path for path, sae in released.items()}
  if len(models) > 1:
    raise errors.UserError(
        f'SAEs of several models ({", ".join(map(str, models))}): set --model,'
        ' or pass the folder of a single model'
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
          f'--{name}={getattr(overrides, name)}: {path} is of {name} {stated};'
          ' omit the flag'
      )
  needed = ['model', 'layer', 'site']
  if origin.site == 'transcoder':
    needed.append('input_gain')
  missing = [f'--{n}' for n in needed if getattr(origin, n) is None]
  if missing:
    raise errors.UserError(
        f"{path}: neither files nor folders name the SAE's input completely:"
        f' set {", ".join(missing)}'
    )
  if origin.site != 'transcoder' and sae.sae.skip:
    raise errors.UserError(
        f'{path}: has a skip term, which only transcoders may have, but its'
        f' site is {origin.site}; set --site=transcoder'
    )
  return dataclasses.replace(sae, origin=origin)
