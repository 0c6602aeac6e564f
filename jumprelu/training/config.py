"""The config of a training run: the parts' configs in one, and the recipes.

`resolve` makes one from a recipe and what overrides it, by dotted path. What
it returns says everything that a run computes; it is written as JSON beside
each checkpoint and each result, and reads back as itself.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, Literal

from jumprelu import data as data_lib
from jumprelu import errors, evals, lm, saes, sharding
from jumprelu.activations import stream as stream_lib
from jumprelu.files import dotted, formats
from jumprelu.training import checkpoint_config, recipes, suite, validation
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
    problems = list(validation.problems(self))
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
    problems.append(validation.misspelt('recipe', recipe, recipes.RECIPES))
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
    problems += validation.model_problems(model, layer)
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
        for coefficient, target_l0 in validation.sparsities(
            config, variant, site
        ):
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
