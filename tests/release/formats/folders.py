"""Published folders, made as their publishers do, and what their SAEs compute.

The formulas are plain NumPy in float64, written from the formats' own
definitions and not from our readers.
"""

import json

import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from jumprelu.evals import jitted
from jumprelu.release import formats

D, WIDTH = 6, 16


def arrays(seed=0, *, d_in=D, d_out=D, width=WIDTH):
  """The five arrays of a JumpReLU SAE; two thresholds are below 0."""
  rng = np.random.default_rng(seed)
  W_dec = rng.normal(size=(width, d_out))
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  threshold = rng.uniform(0.1, 0.8, width)
  threshold[:2] *= -1
  found = {
      'W_enc': rng.normal(size=(d_in, width)),
      'b_enc': rng.normal(size=width) * 0.1,
      'W_dec': W_dec,
      'b_dec': rng.normal(size=d_out),
      'threshold': threshold,
  }
  return {k: v.astype(np.float32) for k, v in found.items()}


def jumprelu(a, x, *, threshold=None):
  """Latents and reconstruction: relu(z) where z is above the threshold."""
  z = x.astype(np.float64) @ a['W_enc'] + a['b_enc']
  threshold = a['threshold'] if threshold is None else threshold
  latents = np.maximum(z, 0) * (z > threshold)
  return latents, latents @ a['W_dec'] + a['b_dec']


def inputs(d_in=D, rows=40):
  return np.random.default_rng(99).normal(size=(rows, d_in)).astype(np.float32)


def gemma_scope(folder, found):
  """params.npz and nothing else."""
  folder.mkdir(parents=True)
  np.savez(folder / 'params.npz', **found)
  return folder


def gemma_scope_2(folder, found, *, skip=None, config=None):
  """Lower-case tensors; config.json where `config` is not None."""
  folder.mkdir(parents=True)
  tensors = {name.lower(): x for name, x in found.items()}
  if skip is not None:
    tensors['affine_skip_connection'] = skip
  safetensors.save_file(tensors, folder / 'params.safetensors')
  if config is not None:
    (folder / 'config.json').write_text(json.dumps(config))
  return folder


def saelens(folder, found, config, **metadata):
  """cfg.json with the keys of version 6, and the tensors."""
  folder.mkdir(parents=True)
  safetensors.save_file(found, folder / 'sae_weights.safetensors')
  base = {
      'd_in': found['W_enc'].shape[0],
      'd_sae': found['W_enc'].shape[1],
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
  """The one SAE below a folder."""
  ((_, found),) = formats.find(root).items()
  return found


def check(found, latents, reconstruction, *, d_in=D):
  """Compares with what the format's formula gives, by an evaluation's call."""
  x = jnp.asarray(inputs(d_in))
  params = {k: jnp.asarray(v) for k, v in found.params.items()}
  assert all(v.dtype == np.float32 for v in found.params.values())
  ours = found.sae.encode(params, x)
  assert (latents > 0).any() and (latents == 0).any()
  np.testing.assert_allclose(ours, latents, rtol=1e-4, atol=1e-5)
  value = jitted.reconstruct(
      params,
      x[None],
      jnp.zeros((1, *reconstruction.shape)),
      keep=jnp.ones((1, len(x)), bool),
      sae=found.sae,
  )
  np.testing.assert_allclose(value[0], reconstruction, rtol=1e-4, atol=1e-5)
