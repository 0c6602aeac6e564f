"""A suite of all sites on the nano model, its SAEs untrained, as a release."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import lm, saes
from jumprelu.release import write
from tests import nano_release, small_release, small_run

# (site, L0 in the row of results, width).
MEMBERS = (
    ('resid_post', 20.0, 64),
    ('resid_post', 5.0, 64),
    ('mlp_out', 7.0, 48),
    ('attn_heads', 9.0, 48),
    ('transcoder', 4.0, 32),
)
LAYER = 2


def make_member(site, l0, width, *, seed):
  """Returns a member whose latents fire on the nano model's activations."""
  config = lm.get_config('gemma2_nano')
  reads = lm.make_reads(site, LAYER, input_gain=False)
  sae = saes.make_sae(
      'jumprelu',
      saes.VARIANTS['jumprelu'][1](initial_threshold=0.5),
      d_in=config.d_site(reads.input.site),
      d_out=config.d_site(reads.target.site),
      width=width,
      transcoder=reads.is_transcoder,
  )
  params = sae.init_params(jax.random.key(seed), initial_threshold=0.5)
  params['b_dec'] += jnp.linspace(-0.1, 0.1, sae.d_out)
  # The last latent never fires.
  params['log_threshold'] = params['log_threshold'].at[-1].set(9.0)
  sae, params = sae.fold(params, input_scale=2.0, target_scale=2.0)
  member = small_release.make_member(seed=seed)
  rng = np.random.default_rng(seed)
  return dataclasses.replace(
      member,
      sae=sae,
      params=params,
      reads=reads,
      results=dict(member.results) | {'l0': l0},
      inputs=2 * rng.normal(size=(9, sae.d_in)).astype(np.float32),
      firing_frequency=None,
  )


@pytest.fixture(scope='session')
def release(tmp_path_factory):
  folder = tmp_path_factory.mktemp('api')
  text = nano_release.make_text(folder / 'text')
  members = [make_member(*m, seed=i) for i, m in enumerate(MEMBERS)]
  training = {
      'model': 'gemma2_nano',
      'data': str(text),
      'corpus': {'seed': 3, 'held_out_percent': 40},
  }
  provenance = small_release.provenance(layer=LAYER, training=training)
  write.write_release(members, folder / 'release', provenance=provenance)
  return folder / 'release'


@pytest.fixture(scope='session')
def suite(release):
  return jumprelu.load(release)


@pytest.fixture(scope='session')
def model():
  return jumprelu.load_lm('gemma2_nano')


@pytest.fixture(scope='session')
def run(tmp_path_factory):
  """Returns the directory of a finished run of 24 steps."""
  folder = tmp_path_factory.mktemp('run')
  fields = small_run.overrides(folder, steps=24) | {
      'layer': LAYER,
      'sites': ('resid_post',),
      'stream.block_positions': 2048,
      'eval.tokens': 2_000,
      'eval.pca_tokens': 2_000,
  }
  dotted = {name.replace('.', '__'): value for name, value in fields.items()}
  assert jumprelu.train_suite(folder / 'run', quiet=True, **dotted) == 'done'
  return folder / 'run'
