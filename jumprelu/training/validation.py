"""What can be wrong with a training config as a whole.

Each part checks its own fields when it is made; here is what only the whole
can know: names in tables, axes of the suite, lengths that must fit.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any

from jumprelu import errors, lm, saes
from jumprelu.files import dotted
from jumprelu.training import recipes, sparsity_coefficients


def problems(config: Any) -> Iterable[str]:
  """Yields what is wrong with the whole; each part checks itself.

  Reads no file, so that a config is valid on every machine.
  """
  if config.model in lm.MODELS:
    layers = lm.MODELS[config.model].layers
    yield from _layer_problems(config.model, config.layer, layers)
  elif config.layer < 0:
    yield f'layer {config.layer} is out of range: must be at least 0'
  for axis, known in (
      ('sites', lm.SITES),
      ('variants', saes.VARIANTS),
  ):
    for value in getattr(config, axis):
      if value not in known:
        yield misspelt(axis, value, known)
  if config.recipe not in recipes.RECIPES:
    yield misspelt('recipe', config.recipe, recipes.RECIPES)
  for axis in ('sites', 'widths', 'variants', 'seeds', 'target_l0'):
    values = getattr(config, axis)
    if not values and axis != 'target_l0':
      yield f'{axis} is empty'
    for value in dotted.repeated(values):
      yield f'{axis} holds {value} twice'
  for width in config.widths:
    if width < 1:
      yield f'widths: {width} must be at least 1'
  for seed in config.seeds:
    if not 0 <= seed < 2**32:
      yield f'seeds: {seed} must be 0 to {2**32 - 1}'
  if not config.data:
    yield 'data is empty: name a text'
  yield from _sparsity_problems(config)
  yield from _length_problems(config)


def model_problems(model: str, layer: int) -> Iterable[str]:
  """Yields what is wrong with a model that only its folder describes.

  Raises:
    MissingInputError, DataError: the folder is missing or damaged; launchers
      tell that from a wrong flag by the exit code.
  """
  if model in lm.MODELS or layer < 0:
    return
  try:
    layers = lm.get_config(model).layers
  except (errors.MissingInputError, errors.DataError):
    raise
  except errors.UserError as error:
    yield str(error)
    return
  yield from _layer_problems(model, layer, layers)


def _layer_problems(model: str, layer: int, layers: int) -> Iterable[str]:
  if not 0 <= layer < layers:
    yield (
        f'layer {layer} is out of range: {model} has layers 0 to {layers - 1}'
    )


def _sparsity_problems(config: Any) -> Iterable[str]:
  if config.target_l0 and config.sparsity_coefficients:
    yield 'target_l0 and sparsity_coefficients exclude each other'
  for target in config.target_l0:
    if not 0 < target < math.inf:
      yield f'target_l0: {target} must be above 0'
    elif target > min(config.widths, default=target):
      yield f'target_l0: {target:g} is more than a width has latents'
  try:
    table = sparsity_coefficients.parse(config.sparsity_coefficients)
  except errors.UserError as error:
    yield str(error)
    return
  for variant, site in table:
    for axis, name, known in (
        ('variant', variant, config.variants),
        ('site', site, config.sites),
    ):
      if name and name not in known:
        yield (
            f'sparsity_coefficients: {axis} {name!r} is not among the'
            f' {axis}s{dotted.nearest(name, known)}'
        )
  wanted = 'target_l0' if config.target_l0 else 'l0'
  for variant in config.variants:
    if variant not in saes.VARIANTS:
      continue
    penalty = getattr(getattr(config.sae, variant), 'penalty', None)
    if penalty in ('l0', 'target_l0') and penalty != wanted:
      reason = 'given' if config.target_l0 else 'not given'
      yield f'sae.{variant}.penalty is {penalty}, but target_l0 is {reason}'
    for site in config.sites:
      if sparsities(config, variant, site):
        continue
      if config.target_l0:
        yield f'target_l0: {variant} cannot aim at an L0; leave it out'
        break
      yield f'sparsity_coefficients: none for {variant} at {site}'


def _length_problems(config: Any) -> Iterable[str]:
  try:
    config.stream.sequences(config.corpus.sequence_length)
  except errors.UserError as error:
    yield str(error)
  if config.tokens < config.stream.block_positions:
    yield (
        f'tokens is {config.tokens}: at least one block'
        f' (stream.block_positions={config.stream.block_positions}) is needed'
    )


def sparsities(
    config: Any, variant: str, site: str
) -> Sequence[tuple[float, float]]:
  """Pairs of sparsity coefficient and target L0, as the variant makes them."""
  entries = config.sparsity_coefficients
  found = sparsity_coefficients.coefficients_for(entries, variant, site)
  return getattr(config.sae, variant).sparsities(found, config.target_l0)


def misspelt(axis: str, value: str, known: Iterable[str]) -> str:
  """Says that a name is in no table, with the nearest one that is."""
  return (
      f'{axis}: {value!r} is unknown{dotted.nearest(value, known)}; known:'
      f' {", ".join(known)}'
  )
