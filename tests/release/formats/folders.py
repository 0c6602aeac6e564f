"""Folders in the published formats, and reference outputs of their SAEs.

The references are plain NumPy in float64, written from the formats' definitions
independently of our readers.
"""

import json

import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from jumprelu.evals import jitted
from jumprelu.release import formats

D, WIDTH = 6, 16


def arrays(seed=0, *, d_in=D, d_out=D, width=WIDTH):
  """Returns the arrays of a JumpReLU SAE; two thresholds are negative."""
  rng = np.random.default_rng(seed)
  W_dec = rng.normal(size=(width, d_out))
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  threshold = rng.uniform(0.1, 0.8, width)
  threshold[:2] *= -1
  values = {
      'W_enc': rng.normal(size=(d_in, width)),
      'b_enc': rng.normal(size=width) * 0.1,
      'W_dec': W_dec,
      'b_dec': rng.normal(size=d_out),
      'threshold': threshold,
  }
  return {k: v.astype(np.float32) for k, v in values.items()}


def jumprelu(a, x, *, threshold=None):
  """Returns latents, relu(z) where z exceeds the threshold, and their decoding."""
  z = x.astype(np.float64) @ a['W_enc'] + a['b_enc']
  threshold = a['threshold'] if threshold is None else threshold
  latents = np.maximum(z, 0) * (z > threshold)
  return latents, latents @ a['W_dec'] + a['b_dec']


def inputs(d_in=D, rows=40):
  return np.random.default_rng(99).normal(size=(rows, d_in)).astype(np.float32)


def gemma_scope(folder, values):
  """Writes a params.npz and no other file."""
  folder.mkdir(parents=True)
  np.savez(folder / 'params.npz', **values)
  return folder


def gemma_scope_2(folder, values, *, skip=None, config=None):
  """Writes lower-case tensors, and config.json if `config` is not None."""
  folder.mkdir(parents=True)
  tensors = {name.lower(): x for name, x in values.items()}
  if skip is not None:
    tensors['affine_skip_connection'] = skip
  safetensors.save_file(tensors, folder / 'params.safetensors')
  if config is not None:
    (folder / 'config.json').write_text(json.dumps(config))
  return folder


def saelens(folder, values, config, **metadata):
  """Writes the tensors, and a cfg.json with the keys of version 6."""
  folder.mkdir(parents=True)
  safetensors.save_file(values, folder / 'sae_weights.safetensors')
  base = {
      'd_in': values['W_enc'].shape[0],
      'd_sae': values['W_enc'].shape[1],
      'dtype': 'float32',
      'device': 'cpu',
      'apply_b_dec_to_input': False,
      'normalize_activations': 'none',
      'reshape_activations': 'none',
      'metadata': {
          'sae_lens_version': '6.18.0',
          'model_name': 'gemma-2-2b',
          'hook_name': 'blocks.20.hook_resid_post',
          **metadata,
      },
  }
  (folder / 'cfg.json').write_text(json.dumps(base | config))
  return folder


def only(root):
  """Returns the only SAE below a folder."""
  (released,) = formats.find(root).values()
  return released


def check(released, latents, reconstruction, *, d_in=D):
  """Compares an SAE with the reference, called as in an evaluation."""
  x = jnp.asarray(inputs(d_in))
  params = {k: jnp.asarray(v) for k, v in released.params.items()}
  assert all(v.dtype == np.float32 for v in released.params.values())
  ours = released.sae.encode(params, x)
  assert (latents > 0).any() and (latents == 0).any()
  np.testing.assert_allclose(ours, latents, rtol=1e-4, atol=1e-5)
  value = jitted.reconstruct(
      params,
      x[None],
      jnp.zeros((1, *reconstruction.shape)),
      keep=jnp.ones((1, len(x)), bool),
      sae=released.sae,
  )
  np.testing.assert_allclose(value[0], reconstruction, rtol=1e-4, atol=1e-5)
