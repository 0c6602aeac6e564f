"""What flags add to what the files and folders say of an SAE."""

from collections.abc import Mapping
import dataclasses

from jumprelu import errors
from jumprelu.release.formats import record


def complete(
    found: Mapping[str, record.Released], given: record.Origin
) -> dict[str, record.Released]:
  """Returns the SAEs with all of their origins known.

  The given model is the one to evaluate on, whatever the SAE was made for; all
  else must agree with what the files say.

  Raises:
    UserError: naming the SAE and the flag that is missing or contradicts it.
  """
  return {path: _complete(path, sae, given) for path, sae in found.items()}


def model_of(found: Mapping[str, record.Released]) -> str:
  """Returns the one model that all SAEs are to be evaluated on."""
  models = {sae.origin.model: path for path, sae in found.items()}
  if len(models) > 1:
    raise errors.UserError(
        f'SAEs of several models ({", ".join(map(str, models))}): give one'
        ' --model, or the folder of one model'
    )
  return str(next(iter(models)))


def _complete(path, sae, given):
  origin = given.over(sae.origin)
  for name in ('layer', 'site', 'input_gain'):
    said = getattr(sae.origin, name)
    if said not in (None, getattr(origin, name)):
      raise errors.UserError(
          f'--{name}={getattr(given, name)}: {path} is of {name} {said}'
      )
  needed = ['model', 'layer', 'site']
  if origin.site == 'transcoder':
    needed.append('input_gain')
  missing = [f'--{n}' for n in needed if getattr(origin, n) is None]
  if missing:
    raise errors.UserError(
        f'{path}: neither its files nor its folders say what it reads: give'
        f' {", ".join(missing)}'
    )
  if origin.site != 'transcoder' and sae.sae.skip:
    raise errors.UserError(
        f'{path}: has a skip term, which only transcoders have; its site is'
        f' {origin.site}'
    )
  return dataclasses.replace(sae, origin=origin)
