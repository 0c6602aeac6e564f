"""A suite of all sites on the nano model, its SAEs untrained, as a release."""

import dataclasses
import doctest
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import lm, saes
from jumprelu.release import write
from tests import nano_release, small_release

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


# L0, FVU and increase of the loss of the demo's members, by site.
DEMO = {
    'resid_post': (
        (43.574, 0.08747, 0.07858),
        (27.506, 0.12239, 0.12832),
        (15.994, 0.16217, 0.20107),
    ),
    'mlp_out': (
        (38.117, 0.08336, 0.0085),
        (23.783, 0.11056, 0.01141),
        (14.623, 0.13909, 0.01653),
    ),
    'attn_heads': (
        (36.409, 0.05153, 0.00545),
        (26.668, 0.07548, 0.00992),
        (17.911, 0.11166, 0.01337),
    ),
    'transcoder': (
        (17.589, 0.19346, 0.02787),
        (12.529, 0.21401, 0.03505),
        (8.303, 0.23789, 0.04206),
    ),
}
# A member of the demo's suite, with arrays rounded to float16.
DEMO_SAE = pathlib.Path(__file__).parents[1] / 'fixtures' / 'demo_sae.npz'


def demo_member(site, index):
  """Returns a member with the demo's results; only one SAE is trained."""
  l0, fvu, delta_loss = DEMO[site][index]
  member = make_member(site, l0, 512, seed=0)
  coefficient = 1e-3 * 2**index
  member = dataclasses.replace(
      member,
      sparsity_coefficient=coefficient,
      results=dict(member.results)
      | {
          'fvu': fvu,
          'delta_loss': delta_loss,
          'sparsity_coefficient': coefficient,
      },
  )
  if (site, index) != ('resid_post', 1):
    return member
  with np.load(DEMO_SAE) as stored:
    params = {name: stored[name].astype(np.float32) for name in stored.files}
  params['W_dec'] /= np.linalg.norm(params['W_dec'], axis=1, keepdims=True)
  params = {name: jnp.asarray(x) for name, x in params.items()}
  return dataclasses.replace(member, params=params)


@pytest.fixture(scope='session')
def workplace(tmp_path_factory):
  """Returns a folder with jumprelu_demo/release."""
  folder = tmp_path_factory.mktemp('workplace')
  members = [demo_member(site, index) for site in DEMO for index in range(3)]
  training = {'model': 'gemma2_nano', 'data': 'stdlib'}
  provenance = small_release.provenance(layer=LAYER, training=training)
  (folder / 'jumprelu_demo').mkdir()
  write.write_release(
      members, folder / 'jumprelu_demo' / 'release', provenance=provenance
  )
  return folder


@pytest.fixture(scope='session')
def run(tmp_path_factory):
  """Returns the directory of the run of `train_suite`'s example."""
  out = tmp_path_factory.mktemp('run') / 'run'
  (example,) = doctest.DocTestParser().get_examples(
      jumprelu.train_suite.__doc__
  )
  code = example.source.replace("'runs/a'", repr(str(out)))
  assert eval(code, {'jumprelu': jumprelu}) == 'done'
  return out
