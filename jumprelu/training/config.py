"""The config of a training run: the configs of its parts, and its checks.

`resolve` makes a config from a recipe and overrides by dotted path. A config
names the inputs of a run and determines all its settings. It is stored as JSON
in run directories, checkpoints and releases, and is equal when it is read back.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, Literal

from jumprelu import data as data_lib
from jumprelu import errors, evals, lm, saes, sharding
from jumprelu.activations import stream as stream_lib
from jumprelu.files import dotted, fields, formats
from jumprelu.training import (
    checkpoint_config,
    coefficient_syntax,
    recipes,
    suite,
)
from jumprelu.training import optim as optim_lib

# A config with one field per variant, so that flags are `--sae.VARIANT.FIELD`.
SaeConfigs: Any = dataclasses.make_dataclass(
    'SaeConfigs',
    [
        (name, config, dataclasses.field(default=config()))
        for name, (_, config) in saes.VARIANTS.items()
    ],
    frozen=True,
)
SaeConfigs.__doc__ = 'The hyper-parameters of each variant.'


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The config of a training run, whose suite has members at one layer."""

  model: str = fields.field(
      'gemma2_nano',
      f'Language model: {lm.spell_models()}, a folder with one (Hugging'
      ' Face or orbax), or FILE.gguf. Named models are in'
      ' $JUMPRELU_MODELS/NAME.',
  )
  layer: int = fields.field(2, 'Layer whose activations are read, from 0.')
  sites: tuple[str, ...] = fields.field(
      tuple(lm.SITES),
      f'Sites of the SAEs, among {", ".join(lm.SITES)}.',
  )
  widths: tuple[int, ...] = fields.field((1024,), 'Numbers of latents.')
  variants: tuple[str, ...] = fields.field(
      ('jumprelu',), f'Kinds of SAE, among {", ".join(saes.VARIANTS)}.'
  )
  sparsity_coefficients: tuple[str, ...] = fields.field(
      ('1e-3', '3e-3', '6e-3'),
      'Sparsity coefficients (lambda), such as 1e-3,3e-3. With a site, or a'
      ' variant and a site, values are joined by +, such as'
      ' resid_post:1e-3+3e-3,jumprelu@mlp_out:2e-3.',
  )
  target_l0: tuple[float, ...] = fields.field(
      (), 'Target L0s, such as 20,50,100, instead of sparsity coefficients.'
  )
  seeds: tuple[int, ...] = fields.field(
      (0,), "Seeds of the SAEs' initialisation; the data use corpus.seed."
  )
  recipe: str = fields.field(
      recipes.DEFAULT,
      f'Set of defaults: {" or ".join(recipes.RECIPES)}. Flags override it.',
  )
  tokens: int = fields.field(
      2_000_000, 'Positions to train on, including dropped ones.'
  )
  data: str = fields.field(
      'stdlib',
      "Text: stdlib (the source of Python's standard library), python (the same,"
      ' jax, flax, optax and numpy), a file, folder or comma-separated list of'
      ' .txt .md .py .jsonl .json .csv .parquet .arrow, also as .gz or .zst,'
      ' tfds:NAME[/CONFIG], or tokens:FOLDER.',
  )
  store: str = fields.field(
      '',
      'Folder with activations that jumprelu harvest has stored. They replace'
      ' the output of the language model and have the same bits and order.',
  )
  init_from: str = fields.field(
      '',
      'Run, release or published SAEs whose parameters the SAEs start with.',
  )
  input_gain: bool = fields.field(
      True,
      "Whether a transcoder's input includes the gain of the norm before the"
      ' MLP.',
  )
  lm_dtype: Literal['auto', 'float32', 'bfloat16'] = fields.field(
      'auto',
      'Precision of the language model; auto: float32 on CPU, else bfloat16.',
  )
  matmul_precision: Literal['default', 'high', 'highest', 'bfloat16'] = (
      fields.field(
          'default',
          'Precision of float32 matrix products. default: float32 on CPU, else'
          " the accelerator's default; bfloat16: bfloat16 inputs, float32 sums"
          ' and results, on every device.',
      )
  )
  backend: Literal['auto', 'oracle', 'dense', 'sparse', 'native', 'pallas'] = (
      fields.field(
          'auto',
          'Implementation of a training step; results agree up to rounding.'
          ' oracle: automatic differentiation, for any SAE; always used for SAEs'
          " that the others leave out. dense: JumpReLU with the paper's"
          ' gradients, hand-written. sparse: only pairs of row and latent with a'
          ' gradient, in JAX on one device, also for TopK and BatchTopK; native:'
          ' the same in C++ on one CPU; pallas: kernels for one GPU, without'
          ' TopK. auto: on one CPU native if it was built, else sparse for wide'
          ' SAEs; on one GPU pallas for very wide SAEs; otherwise dense.',
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
    """The number of optimiser steps of the run."""
    return self.tokens // self.stream.batch

  @property
  def blocks(self) -> int:
    """The number of blocks; only a part of the last one may be used."""
    return -(-self.steps // self.stream.batches)

  def variant_configs(self) -> dict[str, Any]:
    """Returns {variant: its config} for the chosen variants."""
    return {name: getattr(self.sae, name) for name in self.variants}


def resolve(overrides: Mapping[str, Any] | None = None) -> TrainConfig:
  """Returns the config of a recipe (`overrides['recipe']`) with `overrides`.

  If the model is a folder or file, it is read to check an overridden `layer`.
  Configs from JSON are not checked against a folder or file.

  Args:
    overrides: Values by dotted path (`{'optim.learning_rate': 1e-3}`).

  Raises:
    UserError: the config is invalid; one message lists the problems.
    MissingInputError, DataError: the model's files are missing or damaged.
  """
  explicit = dict(overrides or {})
  recipe = explicit.get('recipe', recipes.DEFAULT)
  problems = []
  if recipe not in recipes.RECIPES:
    problems.append(_misspelt('recipe', recipe, recipes.RECIPES))
    explicit['recipe'] = recipe = recipes.DEFAULT
  values = recipes.merge(recipe, explicit)
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
          for path in explicit
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
  """Returns the configs of all recipes except the default, for `--help`."""
  return {
      name: resolve({'recipe': name})
      for name in recipes.RECIPES
      if name != recipes.DEFAULT
  }


def members(config: TrainConfig) -> tuple[suite.Member, ...]:
  """Returns the members of the suite.

  Members are ordered by site, width, variant, coefficient (or target L0), seed.
  """
  suite_members = []
  for site in config.sites:
    for width in config.widths:
      for variant in config.variants:
        sae_config = getattr(config.sae, variant)
        for coefficient, target_l0 in _sparsities(config, variant, site):
          suite_members += [
              suite.Member(
                  site=site,
                  layer=config.layer,
                  width=width,
                  variant=variant,
                  sparsity_coefficient=coefficient,
                  target_l0=target_l0,
                  seed=seed,
                  learning_rate=config.optim.learning_rate,
                  initial_threshold=getattr(
                      sae_config, 'initial_threshold', 0.0
                  ),
              )
              for seed in config.seeds
          ]
  return tuple(suite_members)


def to_json(config: TrainConfig) -> str:
  """Returns the config as JSON."""
  return dotted.to_json(config)


def from_json(text: str, *, where: str = 'the config') -> TrainConfig:
  """Returns the config in the JSON of `to_json`, or of a record in any format.

  Raises:
    UserError: a field is unknown, missing or invalid.
    DataError: the text is not JSON, or the format of the file `where` is newer
      than this version.
  """
  migrate = functools.partial(formats.migrate_train_config, where=where)
  return dotted.from_json(TrainConfig(), text, migrate=migrate, where=where)


def to_record(config: TrainConfig) -> dict[str, Any]:
  """Returns the config as plain values for JSON, with its format number."""
  return formats.stamp(formats.Kind.TRAIN_CONFIG) | dotted.to_dict(config)


def dtype_on(lm_dtype: str, platform: str) -> str:
  """Returns the dtype of `lm_dtype` on a platform ('cpu', 'gpu' or 'tpu')."""
  if lm_dtype != 'auto':
    return lm_dtype
  # On CPU bfloat16 is slower than float32.
  return 'float32' if platform == 'cpu' else 'bfloat16'


def _problems(config: TrainConfig) -> Iterable[str]:
  """Yields problems of top-level fields and of combinations of fields.

  No file is read, so that the result is the same on every machine.
  """
  if config.model in lm.MODELS:
    layers = lm.MODELS[config.model].layers
    yield from _layer_problems(config.model, config.layer, layers)
  elif config.layer < 0:
    yield f'layer {config.layer} is out of range: must be at least 0'
  for axis, known in (('sites', lm.SITES), ('variants', saes.VARIANTS)):
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
  """Yields the problems of a layer of a model that is a folder or file.

  Raises:
    MissingInputError, DataError: the folder is missing or damaged. These errors
      are not yielded, because launchers distinguish them by the exit code.
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
      if _sparsities(config, variant, site):
        continue
      if config.target_l0:
        yield f'target_l0: {variant} has no target L0; remove one of the two'
        break
      yield f'sparsity_coefficients: none for {variant} at {site}'


def _length_problems(config: TrainConfig) -> Iterable[str]:
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


def _sparsities(
    config: TrainConfig, variant: str, site: str
) -> Sequence[tuple[float, float]]:
  """Returns a variant's pairs (sparsity coefficient, target L0) at a site."""
  coefficients = coefficient_syntax.coefficients_for(
      config.sparsity_coefficients, variant, site
  )
  sae_config = getattr(config.sae, variant)
  return sae_config.sparsities(coefficients, config.target_l0)


def _misspelt(axis: str, value: str, known: Iterable[str]) -> str:
  """Returns the message for an unknown name, with the nearest known name."""
  return (
      f'{axis}: {value!r} is unknown{dotted.nearest(value, known)}; known:'
      f' {", ".join(known)}'
  )
