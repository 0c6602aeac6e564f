"""The config of a training run: the parts' configs in one, and the recipes.

`resolve` makes one from a recipe and what overrides it, by dotted path. What
it returns says everything that a run computes; it is written as JSON beside
each checkpoint and each result, and reads back as itself.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, Literal

from jumprelu import data as data_lib
from jumprelu import errors, evals, lm, saes, sharding
from jumprelu.activations import stream as stream_lib
from jumprelu.files import dotted, formats
from jumprelu.training import (
    checkpoint_config,
    recipes,
    sparsity_coefficients,
    suite,
)
from jumprelu.training import optim as optim_lib

# One field a variant, so that flags read `--sae.VARIANT.FIELD`.
SaeConfigs: Any = dataclasses.make_dataclass(
    'SaeConfigs',
    [
        (name, config, dataclasses.field(default=config()))
        for name, (_, config) in saes.VARIANTS.items()
    ],
    frozen=True,
)
SaeConfigs.__doc__ = 'Hyper-parameters of the variants, each its own.'


def _field(default: Any, text: str) -> Any:
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """What is trained: one layer's suite, on which text, by which recipe."""

  model: str = _field(
      'gemma2_nano',
      f'Language model: {", ".join(lm.MODELS)}, or a folder with one (Hugging'
      ' Face or orbax). Known ones are looked for in $JUMPRELU_MODELS/NAME.',
  )
  layer: int = _field(2, 'Layer whose activations are read, from 0.')
  sites: tuple[str, ...] = _field(
      tuple(lm.SITES),
      f'Where SAEs read: some of {", ".join(lm.SITES)}.',
  )
  widths: tuple[int, ...] = _field((1024,), 'Numbers of latents.')
  variants: tuple[str, ...] = _field(
      ('jumprelu',), f'Kinds of SAE: some of {", ".join(saes.VARIANTS)}.'
  )
  sparsity_coefficients: tuple[str, ...] = _field(
      ('1e-3', '3e-3', '6e-3'),
      'Lambdas: 1e-3,3e-3 for every site, or keyed, values joined by +:'
      ' resid_post:1e-3+3e-3,jumprelu@mlp_out:2e-3.',
  )
  target_l0: tuple[float, ...] = _field(
      (), 'Wanted L0s, instead of sparsity coefficients: 20,50,100.'
  )
  seeds: tuple[int, ...] = _field(
      (0,), "Seeds of the SAEs' initialisation; the data have corpus.seed."
  )
  recipe: str = _field(
      recipes.DEFAULT,
      f'Set of defaults: {" or ".join(recipes.RECIPES)}. Flags override it.',
  )
  tokens: int = _field(
      2_000_000, 'Positions to train on, dropped ones included.'
  )
  data: str = _field(
      'stdlib',
      "Text: stdlib (the source of Python's standard library), a file, folder"
      ' or comma-separated list of .txt .md .py .jsonl .parquet,'
      ' tfds:NAME[/CONFIG], or tokens:FOLDER.',
  )
  store: str = _field(
      '',
      'Read activations that jumprelu harvest has stored in this folder; the'
      ' language model is not loaded. Bits and order are those of the stream.',
  )
  input_gain: bool = _field(
      True,
      "Whether a transcoder's input includes the gain of the norm before the"
      ' MLP.',
  )
  lm_dtype: Literal['auto', 'float32', 'bfloat16'] = _field(
      'auto',
      'Precision of the language model; auto: float32 on CPU, bfloat16 else.',
  )
  matmul_precision: Literal['default', 'high', 'highest', 'bfloat16'] = _field(
      'default',
      "Precision of the SAEs' matrix products. default: float32 on CPU, the"
      " accelerator's own else; bfloat16: of bfloat16 inputs, with float32 sums"
      ' and results, everywhere.',
  )
  backend: Literal['auto', 'oracle', 'dense', 'sparse', 'native', 'pallas'] = (
      _field(
          'auto',
          'How a step is computed; the results agree to rounding. oracle:'
          ' automatic differentiation, which variants other than a JumpReLU get'
          ' in any case. dense: written-out gradients. sparse: only pairs with'
          ' a gradient, in JAX on one device; native: the same in C++ on one'
          ' CPU; pallas: the same by kernels for one GPU. auto: native on one'
          ' CPU if it was built, else sparse there for wide SAEs; pallas on one'
          ' GPU for very wide ones; else dense.',
      )
  )
  sae: SaeConfigs = SaeConfigs()  # pyright: ignore[reportInvalidTypeForm]
  optim: optim_lib.Config = optim_lib.Config()
  stream: stream_lib.Config = stream_lib.Config()
  corpus: data_lib.Config = data_lib.Config()
  eval: evals.Config = evals.Config()
  checkpoint: checkpoint_config.Config = checkpoint_config.Config()
  mesh: sharding.Config = sharding.Config()

  def __post_init__(self):
    problems = list(_problems(self))
    if problems:
      raise errors.UserError('; '.join(problems))

  @property
  def steps(self) -> int:
    """Optimiser steps of the run."""
    return self.tokens // self.stream.batch

  @property
  def blocks(self) -> int:
    """Blocks of the run; of the last one perhaps not every batch."""
    return -(-self.steps // self.stream.batches)

  def variant_configs(self) -> dict[str, Any]:
    """The own config of each chosen variant."""
    return {name: getattr(self.sae, name) for name in self.variants}


def resolve(overrides: Mapping[str, Any] | None = None) -> TrainConfig:
  """Makes a config of the recipe in `overrides` and the other overrides.

  A model that is no known one is looked up in its folder: here, and not again
  when the config is read back or changed.

  Args:
    overrides: Values by dotted path (`{'optim.learning_rate': 1e-3}`).

  Raises:
    UserError: with every problem in one message.
    MissingInputError, DataError: the model's folder is missing or damaged.
  """
  given = dict(overrides or {})
  recipe = given.get('recipe', recipes.DEFAULT)
  problems = []
  if recipe not in recipes.RECIPES:
    problems.append(_misspelt('recipe', recipe, recipes.RECIPES))
    given['recipe'] = recipe = recipes.DEFAULT
  values = {**recipes.RECIPES[recipe], **given, 'recipe': recipe}
  if given.get('target_l0') and 'sparsity_coefficients' not in given:
    values['sparsity_coefficients'] = ()
  for schedule in ('lr_warmup', 'sparsity_warmup'):
    # Steps rule where both stand; a share that was asked for must not lose to
    # the recipe's steps.
    if f'optim.{schedule}_fraction' in given:
      values.setdefault(f'optim.{schedule}_steps', None)
      if f'optim.{schedule}_steps' not in given:
        values[f'optim.{schedule}_steps'] = None
  default = TrainConfig()
  known = dotted.leaves(default)
  chosen = values.get('variants', default.variants)
  for name in saes.VARIANTS:
    penalty = f'sae.{name}.penalty'
    if values.get('target_l0') and name in chosen and penalty in known:
      values.setdefault(penalty, 'target_l0')
    if name not in chosen:
      problems += [
          f'{path} is set, but {name} is not among the variants'
          for path in given
          if path.startswith(f'sae.{name}.')
      ]
  try:
    config = dotted.replace(default, values)
  except errors.UserError as error:
    problems.append(str(error))
    config = default
  model, layer = values.get('model', default.model), values.get('layer', 0)
  if isinstance(model, str) and isinstance(layer, int):
    problems += model_problems(model, layer)
  if problems:
    raise errors.UserError('; '.join(problems))
  return config


def other_recipes() -> dict[str, TrainConfig]:
  """The recipes that are not the default, for `--help` to show."""
  return {
      name: resolve({'recipe': name})
      for name in recipes.RECIPES
      if name != recipes.DEFAULT
  }


def members(config: TrainConfig) -> tuple[suite.Member, ...]:
  """Lists the suite: by site, width, variant, coefficient (or target), seed."""
  found = []
  for site in config.sites:
    for width in config.widths:
      for variant in config.variants:
        own = getattr(config.sae, variant)
        for coefficient, target_l0 in _sparsities(config, variant, site):
          found += [
              suite.Member(
                  site=site,
                  layer=config.layer,
                  width=width,
                  variant=variant,
                  sparsity_coefficient=coefficient,
                  target_l0=target_l0,
                  seed=seed,
                  learning_rate=config.optim.learning_rate,
                  initial_threshold=getattr(own, 'initial_threshold', 0.0),
              )
              for seed in config.seeds
          ]
  return tuple(found)


def to_json(config: TrainConfig) -> str:
  """Writes the config as JSON."""
  return dotted.to_json(config)


def from_json(text: str, *, where: str = 'the config') -> TrainConfig:
  """Reads the JSON of `to_json`, or of `to_record` in any version so far.

  Fields that are unknown or missing once old formats are migrated are errors,
  as are newer formats; `where` names the file in their messages.
  """
  return dotted.from_json(
      TrainConfig(),
      text,
      migrate=functools.partial(formats.migrate_train_config, where=where),
  )


def to_record(config: TrainConfig) -> dict[str, Any]:
  """Returns the config as files hold it, with the number of its format."""
  return formats.stamp(formats.Kind.TRAIN_CONFIG) | dotted.to_dict(config)


def dtype_on(config: TrainConfig, platform: str) -> str:
  """The language model's dtype on a platform ('cpu', 'gpu', 'tpu')."""
  if config.lm_dtype != 'auto':
    return config.lm_dtype
  # On CPU bfloat16 is slower than float32.
  return 'float32' if platform == 'cpu' else 'bfloat16'


def _problems(config: TrainConfig) -> Iterable[str]:
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
        yield _misspelt(axis, value, known)
  if config.recipe not in recipes.RECIPES:
    yield _misspelt('recipe', config.recipe, recipes.RECIPES)
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


def _sparsity_problems(config: TrainConfig) -> Iterable[str]:
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
      if _sparsities(config, variant, site):
        continue
      if config.target_l0:
        yield f'target_l0: {variant} cannot aim at an L0; leave it out'
        break
      yield f'sparsity_coefficients: none for {variant} at {site}'


def _length_problems(config: TrainConfig) -> Iterable[str]:
  try:
    config.stream.sequences(config.corpus.sequence_length)
  except errors.UserError as error:
    yield str(error)
  if config.tokens < config.stream.block_positions:
    yield (
        f'tokens is {config.tokens}: at least one block'
        f' (stream.block_positions={config.stream.block_positions}) is needed'
    )


def _sparsities(
    config: TrainConfig, variant: str, site: str
) -> Sequence[tuple[float, float]]:
  """Pairs of sparsity coefficient and target L0, as the variant makes them."""
  entries = config.sparsity_coefficients
  found = sparsity_coefficients.coefficients_for(entries, variant, site)
  return getattr(config.sae, variant).sparsities(found, config.target_l0)


def _misspelt(axis: str, value: str, known: Iterable[str]) -> str:
  """Says that a name is in no table, with the nearest one that is."""
  return (
      f'{axis}: {value!r} is unknown{dotted.nearest(value, known)}; known:'
      f' {", ".join(known)}'
  )
