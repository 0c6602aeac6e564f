"""A tiny random Gemma 2 for tests; the heads are wider than the model."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.lm import gemma

CONFIG = lm.LmConfig(
    name='tiny',
    vocab=64,
    d_model=16,
    ffw=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    layers=4,
    window=5,
    context=12,
)


@functools.cache
def model(config: lm.LmConfig = CONFIG) -> lm.LanguageModel:
  """Returns a model with random weights and random norm gains."""
  # NumPy draws the weights because compiling the draws in JAX takes seconds.
  rng = np.random.default_rng(3)

  def draw(leaf):
    size = 0.3 if len(leaf.shape) > 1 else 0.2
    return jnp.asarray(size * rng.normal(size=leaf.shape), jnp.float32)

  params = jax.tree.map(draw, gemma.param_shapes(config))
  return lm.LanguageModel(config, params, pathlib.Path('none'), config.layers)


@dataclasses.dataclass(frozen=True)
class Batch:
  """Token ids, with the positions and segments for the forward pass."""

  tokens: jax.Array
  positions: jax.Array
  segments: jax.Array

  @property
  def kwargs(self):
    return {'positions': self.positions, 'segments': self.segments}


def batch(sequences: int = 3, length: int = 12, seed: int = 0) -> Batch:
  """Returns rows of one document each."""
  ids = np.random.default_rng(seed).integers(
      4, CONFIG.vocab, (sequences, length)
  )
  ids[:, 0] = 2
  tokens = jnp.asarray(ids, jnp.int32)
  positions = jnp.broadcast_to(
      jnp.arange(length, dtype=jnp.int32)[None], tokens.shape
  )
  return Batch(tokens, positions, jnp.ones_like(tokens))


def clean_losses(model, batch, **kwargs):
  """Returns losses, from a new `jit`."""
  return jax.jit(
      lambda params, tokens: lm.losses(
          model, params, tokens, **batch.kwargs, **kwargs
      )
  )(model.params, batch.tokens)


@functools.partial(jax.jit, static_argnames='layers')
def prefixes(params, *, layers):
  """Returns the residual stream that enters each of `layers`."""
  first = batch()
  return [
      lm.prefix(model(), params, first.tokens, **first.kwargs, layer=layer)
      for layer in layers
  ]


@functools.cache
def reference_losses():
  """Returns the clean losses of the tiny model on the first batch."""
  return clean_losses(model(), batch())
