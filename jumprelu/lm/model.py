"""Language models: loading, activations, logits and losses."""

import dataclasses
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Array, Float, Int
from jumprelu.lm import attention, families, gemma, sites, weights
from jumprelu.lm import config as config_lib
from jumprelu.lm import loss as loss_lib
from jumprelu.lm import source as source_lib


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
  """A model's shapes, the parameters that were loaded, and its tokenizer."""

  config: config_lib.LmConfig
  params: gemma.Params
  tokenizer_path: pathlib.Path
  num_layers: int  # The number of layers that were loaded.

  @property
  def name(self) -> str:
    """The name under which results are stored."""
    return self.config.name


def load(
    model: str,
    *,
    num_layers: int | None = None,
    dtype: Any = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
) -> LanguageModel:
  """Returns a model with its first `num_layers` layers, sharded over `mesh`.

  Args:
    model: A known name, a folder, or a GGUF file (`source.find`).
    num_layers: The number of layers to load; None loads all.
    dtype: The dtype of the parameters and of the model's computations.
    mesh: The device mesh; None for one device.

  Raises:
    UserError: if the model is unknown.
    MissingInputError: if its files are missing.
    DataError: if its files are damaged or its model is in no known family.
  """
  source = source_lib.find(model)
  params = weights.load(
      source.config,
      source.open(),
      num_layers=num_layers,
      dtype=dtype,
      mesh=mesh,
  )
  return LanguageModel(
      source.config,
      params,
      source.tokenizer_path,
      source.config.layers if num_layers is None else num_layers,
  )


def activations(
    model: LanguageModel,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    positions: Int[Array, 'sequences positions'],
    segments: Int[Array, 'sequences positions'],
    taps: tuple[sites.Tap, ...],
    mesh: jax.sharding.Mesh | None = None,
) -> dict[sites.Tap, Float[Array, 'sequences positions d_site']]:
  """Returns the activations at `taps`, running no block above the last tap.

  Args:
    model: The model.
    params: Its parameters, passed separately so that they are an argument of
      the caller's `jit` and not a constant in it.
    tokens: Token ids.
    positions: Positions within each document.
    segments: Document numbers within each sequence, 0 for padding.
    taps: The activations to return.
    mesh: The device mesh over which activations are sharded.
  """
  last = max(tap.layer for tap in taps)
  _, values = gemma.run(
      model.config,
      params,
      tokens,
      positions=positions,
      segments=segments,
      num_layers=last + 1,
      taps=frozenset(taps),
      mesh=mesh,
  )
  return values


def input_gain(params: gemma.Params, layer: int) -> Float[Array, ' model']:
  """Returns the gain of a layer's pre-feedforward norm, which is 1 + scale.

  The norm's output, gain included, is `Site.MLP_IN`. Gemma Scope's transcoders
  read this output divided by the gain (arXiv 2408.05147, section 3.4), and
  Gemma Scope 2's read the output itself.
  """
  return 1 + params[f'layer_{layer}']['pre_ffw_norm']['scale']


def input_gains(
    config: config_lib.LmConfig, params: gemma.Params, reads: sites.Reads
) -> Float[Array, ' sum_d_site']:
  """Returns the gains of an SAE's inputs in float32, concatenated.

  An input at `Site.MLP_IN` has the gain of its layer; other inputs have ones.
  """
  gains = [
      input_gain(params, tap.layer).astype(jnp.float32)
      if tap.site is sites.Site.MLP_IN
      else jnp.ones(config.d_site(tap.site), jnp.float32)
      for tap in reads.inputs
  ]
  return gains[0] if len(gains) == 1 else jnp.concatenate(gains)


def prefix(
    model: LanguageModel,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    positions: Int[Array, 'sequences positions'],
    segments: Int[Array, 'sequences positions'],
    layer: int,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions model']:
  """Returns the residual stream that enters block `layer`.

  `losses(..., inputs=prefix, first_layer=layer)` runs the remaining blocks.
  Losses with different splices can therefore share one prefix.
  """
  x, _ = gemma.run(
      model.config,
      params,
      tokens,
      positions=positions,
      segments=segments,
      num_layers=layer,
      mesh=mesh,
  )
  return x


def losses(
    model: LanguageModel,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    **kwargs: Any,
) -> Float[Array, 'sequences positions']:
  """Returns next-token losses; arguments as in `lm.loss.losses`."""
  return loss_lib.losses(model.config, params, tokens, **kwargs)


def hidden(
    model: LanguageModel,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    **kwargs: Any,
) -> Float[Array, 'sequences positions model']:
  """Returns the final norm's output; arguments as in `lm.loss.hidden`."""
  return loss_lib.hidden(model.config, params, tokens, **kwargs)


def compare(
    model: LanguageModel, params: gemma.Params, *args: Any, **kwargs: Any
) -> loss_lib.Comparison:
  """Returns the comparison of two passes; arguments as in `lm.loss.compare`."""
  return loss_lib.compare(model.config, params, *args, **kwargs)


def unembed(
    model: LanguageModel,
    params: gemma.Params,
    hidden: Float[Array, '*batch model'],
) -> Float[Array, '*batch vocab']:
  """Returns the logits, in float32, of final hidden states (`hidden`)."""
  return gemma.unembed(model.config, params, hidden)


def logits(
    model: LanguageModel,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    positions: Int[Array, 'sequences positions'],
    segments: Int[Array, 'sequences positions'],
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions vocab']:
  """Returns the logits in float32."""
  hidden, _ = gemma.run(
      model.config,
      params,
      tokens,
      positions=positions,
      segments=segments,
      final_norm=True,
      mesh=mesh,
  )
  return gemma.unembed(model.config, params, hidden)


def self_check(model: LanguageModel) -> float:
  """Returns the largest relative difference from two reference computations.

  Our logits of a few tokens are compared with those of the gemma package, with
  the layers that were loaded. Only long sequences use the attention kernel,
  which is therefore compared separately, with `chunked` attention
  (`attention.self_check`). Differences are relative to the largest value of the
  reference.

  Raises:
    DataError: if a weight is not finite.
    NumericalError: if a difference exceeds rounding errors. The message names
      the forward pass or the attention kernel.
  """
  config = dataclasses.replace(model.config, layers=model.num_layers)
  shallow = dataclasses.replace(model, config=config)
  count = min(12, config.context)
  special = families.family_of(config).special_ids
  ids = np.random.default_rng(0).integers(
      special.unk + 1, config.vocab, (1, count)
  )
  ids[0, 0] = special.bos
  tokens = jnp.asarray(ids, jnp.int32)

  @jax.jit
  def both(params, tokens):
    positions = jnp.broadcast_to(jnp.arange(count), tokens.shape)
    ours = logits(
        shallow,
        params,
        tokens,
        positions=positions,
        segments=jnp.ones_like(tokens),
    )
    theirs = gemma.package_logits(config, params, tokens)
    return attention.relative_difference(ours, theirs)

  dtype = jax.tree.leaves(model.params)[0].dtype
  tolerance = 1e-4 if dtype == jnp.float32 else 3e-2
  logits_difference = float(both(model.params, tokens))
  if not math.isfinite(logits_difference):
    _refuse_non_finite(model)
  if not logits_difference <= tolerance:
    raise errors.NumericalError(
        f'{config.name}: our forward pass differs from the gemma package by'
        f' {logits_difference:.1e} of the largest logit; install the version of'
        ' gemma that setup.py pins'
    )
  kernel_difference = attention.self_check(config)
  if not kernel_difference <= tolerance:
    raise errors.NumericalError(
        f"{config.name}: JAX's attention kernel for TPUs differs from chunked"
        f' attention by {kernel_difference:.1e} of the largest output; install'
        ' a version of jax that setup.py allows'
    )
  return max(logits_difference, kernel_difference)


def _refuse_non_finite(model: LanguageModel) -> None:
  """Raises DataError if a parameter has non-finite values."""
  damaged = [
      name
      for name, value in weights.flatten(model.params).items()
      if not bool(jnp.isfinite(value).all())
  ]
  if damaged:
    raise errors.DataError(
        f'--model={model.name}: {len(damaged)} of its tensors have non-finite'
        f' weights, the first is {damaged[0]}; fetch the weights again'
    )
