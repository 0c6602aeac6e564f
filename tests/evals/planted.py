"""Evaluation without a language model: activations come from a table."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, saes
from jumprelu.data import packing
from jumprelu.evals import corpus_passes, splice, text
from jumprelu.evals.measures import config as config_lib
from jumprelu.evals.measures import context
from tests.lm import tiny

TAP = lm.Tap(0, lm.Site.RESID_POST)


def make_sae(encoders, decoders, threshold=0.25):
  """Returns a member with these encoder and decoder rows, without biases."""
  W_enc = np.asarray(encoders, np.float32).T
  model, width = W_enc.shape
  config = saes.jumprelu.Config(
      pre_encoder_bias=False, threshold_parameter='linear'
  )
  sae = saes.make_sae('jumprelu', config, d_in=model, d_out=model, width=width)
  params = {
      'W_enc': W_enc,
      'b_enc': np.zeros(width),
      'W_dec': np.asarray(decoders),
      'b_dec': np.zeros(model),
      'threshold': np.full(width, threshold),
  }
  params = {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
  return corpus_passes.Placed(sae, params, lm.Reads((TAP,), (TAP,)))


def make_context(table, *members, sequences=4, length=12, **changes):
  """Returns a context whose forward pass looks up the tokens in `table`."""
  table = jnp.asarray(table, jnp.float32)

  @jax.jit
  def forward(tokens):
    return splice.Batch(
        tokens,
        packing.positions(tokens),
        packing.segments(tokens),
        packing.keep_mask(tokens),
        {TAP: table[tokens]},
    )

  nothing = np.zeros((1, length), np.int32)
  rows = text.Text(None, np.zeros(1, int), sequences, None)
  return context.Context(
      # Only the shapes matter, because the model is never run.
      model=lm.LanguageModel(tiny.CONFIG, {}, pathlib.Path('none'), 0),
      members=members,
      names=[f'm{i}' for i in range(len(members))],
      kinds=[None] * len(members),
      firing_frequency=[],
      means={},
      forward=forward,
      text=text.in_memory(nothing, rows),
      settings=config_lib.Config(**changes),
  )
