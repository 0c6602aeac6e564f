"""The config of a training run, made of the configs of its parts.

`resolve` makes a config from a recipe and overrides by dotted path. A config
names the inputs of a run and determines all its settings. It is stored as JSON
in run directories, checkpoints and releases, and is equal when it is read back.
"""

from collections.abc import Mapping
import dataclasses
import functools
import itertools
from typing import Any, Literal

from jumprelu import data as data_lib
from jumprelu import errors, evals, lm, saes, sharding
from jumprelu.activations import stream as stream_lib
from jumprelu.files import dotted, fields, formats
from jumprelu.training import (
    checkpoint_config,
    config_checks,
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
  """The config of a training run.

  Its suite has members at one layer, or the same members at several layers.
  """

  model: str = fields.field(
      'gemma2_nano',
      f'Language model: {lm.spell_models()}, a folder with one (Hugging'
      ' Face or orbax), or FILE.gguf. Named models are in'
      ' $JUMPRELU_MODELS/NAME.',
  )
  layer: int = fields.field(2, 'Layer whose activations are read, from 0.')
  layers: tuple[int, ...] = fields.field(
      (),
      'Layers of one run, such as 5,12,20, instead of --layer.',
  )
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
  affine_skip: bool = fields.field(
      False,
      'Whether transcoders have a skip term: their reconstruction also has a'
      ' linear map of the input.',
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
    problems = list(config_checks.problems(self))
    if problems:
      raise errors.UserError('; '.join(problems))

  @property
  def read_layers(self) -> tuple[int, ...]:
    """The layers whose activations are read."""
    return self.layers or (self.layer,)

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
    problems.append(config_checks.misspelt('recipe', recipe, recipes.RECIPES))
    explicit['recipe'] = recipe = recipes.DEFAULT
  if explicit.get('layers') and 'layer' in explicit:
    problems.append('layer and layers exclude each other; remove one')
  explicit = _with_single_layer(explicit)
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
  model = values.get('model', default.model)
  layers = values.get('layers') or (values.get('layer', 0),)
  if isinstance(model, str) and _are_numbers(layers):
    problems += config_checks.model_problems(model, layers)
  if problems:
    raise errors.UserError('; '.join(problems))
  return config


def _with_single_layer(explicit: dict[str, Any]) -> dict[str, Any]:
  """Returns overrides whose list of one layer is replaced by that layer.

  A run thus has the same config and digest, whichever flag named its layer.
  """
  layers: Any = explicit.get('layers')
  if not _are_numbers(layers) or len(layers) != 1:
    return explicit
  return {**explicit, 'layers': (), 'layer': layers[0]}


def _are_numbers(layers: Any) -> bool:
  return isinstance(layers, list | tuple) and all(
      isinstance(layer, int) for layer in layers
  )


def other_recipes() -> dict[str, TrainConfig]:
  """Returns the configs of all recipes except the default, for `--help`."""
  return {
      name: resolve({'recipe': name})
      for name in recipes.RECIPES
      if name != recipes.DEFAULT
  }


def members(config: TrainConfig) -> tuple[suite.Member, ...]:
  """Returns the members of the suite.

  Members are ordered by layer, site, width, variant, coefficient (or target
  L0), seed.
  """
  suite_members = []
  for layer, site in itertools.product(config.read_layers, config.sites):
    for width in config.widths:
      for variant in config.variants:
        sae_config = getattr(config.sae, variant)
        for coefficient, target_l0 in config_checks.sparsities(
            config, variant, site
        ):
          suite_members += [
              suite.Member(
                  site=site,
                  layer=layer,
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
