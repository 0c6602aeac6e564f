"""Direct effects of latents on logits, with the final norm's scale frozen.

The residual stream x before the final norm gives the logit of token v, before
the soft cap, as  u_v . (gain * x) / rms(x).  With rms(x) frozen this is linear
in x, so a term that is added to the residual stream has the contribution
u_v . (gain * term) / rms(x). SAEs of `resid_post` and `mlp_out`, and
transcoders, add their decoder rows to the residual stream directly. Rows of
`attn_heads` first pass through the layer's output projection and its post-norm,
whose scale is frozen too.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Float, Int
from jumprelu.lm import model as model_lib
from jumprelu.lm import sites

_EPSILON = 1e-6


def unembedding(
    model: model_lib.LanguageModel,
    tokens: Int[np.ndarray, ' tokens'] | None = None,
) -> Float[np.ndarray, 'tokens model']:
  """Returns unembedding rows with the final norm's gain folded in.

  Args:
    model: The model.
    tokens: The ids of the rows; all tokens if None.
  """
  rows = model.params['embedder']['input_embedding']
  rows = rows if tokens is None else rows[jnp.asarray(tokens)]
  gain = 1 + np.asarray(model.params['final_norm']['scale'], np.float32)
  return np.asarray(rows, np.float32) * gain


def written(
    model: model_lib.LanguageModel,
    reads: sites.Reads,
    rows: Float[np.ndarray, 'rows d_site'],
) -> Float[np.ndarray, 'rows model']:
  """Returns decoder rows as directions of the residual stream.

  Rows of `attn_heads` are multiplied by the output projection and by the gain
  of the post-norm; the norm's scale, which depends on the token, is left out.
  """
  if reads.target.site is not sites.Site.ATTN_HEADS:
    return np.asarray(rows)
  projected = np.asarray(rows) @ output_projection(model, reads.target.layer)
  layer = model.params[f'layer_{reads.target.layer}']
  if 'post_attention_norm' not in layer:
    return projected
  gain = 1 + np.asarray(layer['post_attention_norm']['scale'], np.float32)
  return projected * gain


def output_projection(
    model: model_lib.LanguageModel, layer: int
) -> Float[np.ndarray, 'd_site model']:
  """Returns the matrix from a layer's concatenated heads to the model."""
  weights = model.params[f'layer_{layer}']['attn']['attn_vec_einsum']['w']
  weights = np.asarray(weights, np.float32)
  return weights.reshape(-1, weights.shape[-1])


def frozen_scales(
    model: model_lib.LanguageModel,
    reads: sites.Reads,
    *,
    final: Float[np.ndarray, 'tokens model'],
    target: Float[np.ndarray, 'tokens d_site'],
) -> Float[np.ndarray, ' tokens']:
  """Returns the factor of each token by which frozen norms divide.

  Args:
    model: The model.
    reads: The taps of the SAE.
    final: The residual stream after the last block.
    target: The activations at the SAE's target.
  """
  scales = _rms(final)
  if reads.target.site is sites.Site.ATTN_HEADS:
    layer = reads.target.layer
    if 'post_attention_norm' in model.params[f'layer_{layer}']:
      scales = scales * _rms(target @ output_projection(model, layer))
  return scales


def _rms(x: Any) -> Float[np.ndarray, ' tokens']:
  return np.sqrt(np.square(np.asarray(x, np.float32)).mean(-1) + _EPSILON)
