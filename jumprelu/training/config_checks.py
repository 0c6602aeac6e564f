"""Checks of a training config, which `training.config` makes."""

from collections.abc import Iterable, Sequence
import math
from typing import Any

from jumprelu import errors, lm, saes
from jumprelu.files import dotted
from jumprelu.training import coefficient_syntax, recipes, suite


def problems(config: Any) -> Iterable[str]:
  """Yields problems of top-level fields and of combinations of fields.

  No file is read, so that the result is the same on every machine.
  """
  if config.model in lm.MODELS:
    layers = lm.MODELS[config.model].layers
    yield from _layer_problems(config.model, config.read_layers, layers)
  else:
    for layer in config.read_layers:
      if layer < 0:
        yield f'layer {layer} is out of range: must be at least 0'
  for axis, known in (('sites', lm.SITES), ('variants', saes.VARIANTS)):
    for value in getattr(config, axis):
      if value not in known:
        yield misspelt(axis, value, known)
  if config.affine_skip and not any(map(_is_transcoder, config.sites)):
    yield 'affine_skip is set, but there is no transcoder among the sites'
  if config.recipe not in recipes.RECIPES:
    yield misspelt('recipe', config.recipe, recipes.RECIPES)
  for axis in ('layers', 'sites', 'widths', 'variants', 'seeds', 'target_l0'):
    values = getattr(config, axis)
    if not values and axis not in ('layers', 'target_l0'):
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


def _is_transcoder(site: str) -> bool:
  return site in lm.SITES and lm.make_reads(site, 0).is_transcoder


def model_problems(model: str, read_layers: Sequence[int]) -> Iterable[str]:
  """Yields the problems of layers of a model that is a folder or file.

  Raises:
    MissingInputError, DataError: the folder is missing or damaged. These errors
      are not yielded, because launchers distinguish them by the exit code.
  """
  if model in lm.MODELS or min(read_layers) < 0:
    return
  try:
    layers = lm.get_config(model).layers
  except (errors.MissingInputError, errors.DataError):
    raise
  except errors.UserError as error:
    yield str(error)
    return
  yield from _layer_problems(model, read_layers, layers)


def _layer_problems(
    model: str, read_layers: Sequence[int], layers: int
) -> Iterable[str]:
  for layer in read_layers:
    if not 0 <= layer < layers:
      yield (
          f'layer {layer} is out of range: {model} has layers 0 to {layers - 1}'
      )


def _sparsity_problems(config: Any) -> Iterable[str]:
  if config.target_l0 and config.sparsity_coefficients:
    yield 'target_l0 and sparsity_coefficients exclude each other; remove one'
  for target in config.target_l0:
    if not 0 < target < math.inf:
      yield f'target_l0: {target} must be above 0'
    elif target > min(config.widths, default=target):
      yield f'target_l0: {target:g} is larger than width {min(config.widths)}'
  try:
    table = coefficient_syntax.parse(config.sparsity_coefficients)
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
  expected = 'target_l0' if config.target_l0 else 'l0'
  for variant in config.variants:
    if variant not in saes.VARIANTS:
      continue
    penalty = getattr(getattr(config.sae, variant), 'penalty', None)
    if penalty in ('l0', 'target_l0') and penalty != expected:
      reason = 'set' if config.target_l0 else 'not set'
      yield f'sae.{variant}.penalty is {penalty}, but target_l0 is {reason}'
    for site in config.sites:
      if sparsities(config, variant, site):
        continue
      if config.target_l0:
        yield f'target_l0: {variant} has no target L0; remove one of the two'
        break
      yield f'sparsity_coefficients: none for {variant} at {site}'


def _length_problems(config: Any) -> Iterable[str]:
  try:
    config.stream.sequences(config.corpus.sequence_length)
  except errors.UserError as error:
    yield str(error)
  if config.tokens < config.stream.block_positions:
    yield (
        f'tokens is {config.tokens}: use {config.stream.block_positions:_} or'
        ' more (one block), or a smaller --stream.block_positions'
    )
  elif config.steps > suite.MAX_STEPS:
    yield (
        f'tokens: use at most {suite.MAX_STEPS * config.stream.batch:_}, which are'
        f' 2**31 - 1 steps of {config.stream.batch}'
    )


def sparsities(
    config: Any, variant: str, site: str
) -> Sequence[tuple[float, float]]:
  """Returns a variant's pairs (sparsity coefficient, target L0) at a site."""
  coefficients = coefficient_syntax.coefficients_for(
      config.sparsity_coefficients, variant, site
  )
  sae_config = getattr(config.sae, variant)
  return sae_config.sparsities(coefficients, config.target_l0)


def misspelt(axis: str, value: str, known: Iterable[str]) -> str:
  """Returns the message for an unknown name, with the nearest known name."""
  return (
      f'{axis}: {value!r} is unknown{dotted.nearest(value, known)}; known:'
      f' {", ".join(known)}'
  )
