"""A release of three tiny members: two with equal names, and a transcoder."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, saes
from jumprelu.files import digests, json_files
from jumprelu.release import members
from jumprelu.release import write as write_lib

SCALE = 3.5
TARGET_SCALE = 0.75
LAYER = 2
# The folder of the first member.
FOLDER = 'resid_post/layer_2/width_12/average_l0_3'

replace = dataclasses.replace


def provenance(layer=LAYER, **changes):
  return members.Provenance(
      **{
          'model': 'gemma2_nano',
          'layers': (layer,),
          'training': {'seed': 0, 'optim': {'learning_rate': 1e-3}},
          'corpus': {'name': 'stdlib', 'digest': 'ab' * 32},
          'tokenizer_sha256': 'cd' * 32,
          'run': 'ef' * 32,
          'command': 'jumprelu train --out=runs/a',
          **changes,
      }
  )


PROVENANCE = provenance()


def trained_sae(*, seed, variant='jumprelu', d=8, width=12, **fields):
  """Returns an SAE of scaled activations, as after training, and its params."""
  _, make_config = saes.VARIANTS[variant]
  sae = saes.make_sae(
      variant,
      make_config(**fields),
      d_in=d,
      d_out=d,
      width=width,
      transcoder=False,
  )
  return sae, perturbed(sae, seed)


def trained_transcoder(variant='jumprelu', **fields):
  config = saes.VARIANTS[variant][1](**fields)
  sae = saes.make_sae(
      variant, config, d_in=8, d_out=6, width=10, transcoder=True
  )
  return sae, perturbed(sae, 5)


def perturbed(sae, seed):
  """Returns initial parameters with perturbed biases and thresholds."""
  params = sae.init_params(jax.random.key(seed), initial_threshold=0.05)
  rng = np.random.default_rng(seed)
  params = {
      k: v
      if k in ('W_enc', 'W_dec', *sae.untrained)
      else v + jnp.asarray(rng.normal(size=v.shape) * 0.1, jnp.float32)
      for k, v in params.items()
  }
  if not sae.untrained:
    return params
  # Parameters that follow the batches are updated with one batch.
  inputs, targets = (
      jnp.asarray(rng.normal(size=(9, size)), jnp.float32)
      for size in (sae.d_in, sae.d_out)
  )
  _, parts = sae.loss(
      params,
      inputs,
      targets,
      keep=jnp.ones(9, bool),
      sparsity_coefficient=0.0,
      target_l0=1.0,
  )
  return params | parts.carried


def make_member(
    *, seed=0, variant='jumprelu', coefficient=1e-3, l0=3.2, **fields
):
  sae, params = trained_sae(seed=seed, variant=variant, **fields)
  sae, params = sae.fold(params, input_scale=SCALE, target_scale=SCALE)
  return _member(
      sae,
      params,
      lm.make_reads('resid_post', LAYER),
      seed=seed,
      coefficient=coefficient,
      l0=l0,
      target_scale=SCALE,
  )


def make_members():
  sae, params = trained_transcoder()
  sae, params = sae.fold(params, input_scale=SCALE, target_scale=TARGET_SCALE)
  return [
      make_member(seed=0, coefficient=1e-3, l0=3.2),
      make_member(seed=1, coefficient=3e-3, l0=2.6),
      _member(
          sae,
          params,
          lm.make_reads('transcoder', LAYER, input_gain=False),
          seed=5,
          coefficient=2e-3,
          l0=3.9,
          target_scale=TARGET_SCALE,
      ),
  ]


def _member(sae, params, reads, *, seed, coefficient, l0, target_scale):
  rng = np.random.default_rng(100 + seed)
  inputs = (rng.normal(size=(9, sae.d_in)) * SCALE).astype(np.float32)
  return members.Member(
      sae=sae,
      params=params,
      reads=reads,
      sparsity_coefficient=coefficient,
      target_l0=0.0,
      seed=seed,
      learning_rate=1e-3,
      initial_threshold=0.05,
      input_scale=SCALE,
      target_scale=target_scale,
      tokens_trained=1000,
      steps=7,
      results={
          'model': 'gemma2_nano',
          'layer': LAYER,
          'site': reads.name,
          'width': sae.width,
          'variant': sae.variant,
          'sparsity_coefficient': coefficient,
          'target_l0': 0.0,
          'seed': seed,
          'l0': l0,
          'fvu': 0.1,
          'delta_loss': 0.05,
          'delta_loss_stderr': 0.003,
          'loss_recovered': 0.97,
          'dead_share': 0.0,
          'dead_window_tokens': 100_000,
          'tokens_evaluated': 131_072,
      },
      inputs=inputs,
      firing_frequency=np.full(sae.width, 0.25, np.float32),
  )


def write(out, members=None, provenance=PROVENANCE) -> pathlib.Path:
  write_lib.write_release(
      make_members() if members is None else members, out, provenance=provenance
  )
  return pathlib.Path(out)


def reseal(out, folder=FOLDER):
  """Recomputes all digests, so that only other checks can fail."""
  config = json_files.read_json(out / folder / 'config.json')
  config['sha256'] = digests.sha256_of(out / folder / 'params.npz')
  json_files.write_json(out / folder / 'config.json', config)
  suite = json_files.read_json(out / 'suite.json')
  for member in suite['members']:
    if member['path'] == folder:
      for name in member['files']:
        member['files'][name] = digests.sha256_of(out / folder / name)
  json_files.write_json(out / 'suite.json', suite)


def change_arrays(out, change, file='params.npz', *, folder=FOLDER):
  path = out / folder / file
  with np.load(path) as stored:
    arrays = {k: stored[k].copy() for k in stored.files}
  change(arrays)
  np.savez(path, **arrays)
  reseal(out, folder)


def change_json(out, change, file='config.json'):
  path = out / FOLDER / file
  value = json_files.read_json(path)
  change(value)
  json_files.write_json(path, value)
  reseal(out)
