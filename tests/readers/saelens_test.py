"""SAELens 6.54 opens our exports, and our reader opens its saves.

The environment needs a torch for CPUs, sae-lens==6.54.12, the core of this
package, and pytest with its plugins:

  pytest -m readers tests/readers
"""

import numpy as np
import pytest

from jumprelu import saes
from jumprelu.release import formats
from tests.release.exports import small

pytestmark = pytest.mark.readers

VARIANTS = list(saes.VARIANTS)


def inputs():
  return (np.random.default_rng(99).normal(size=(40, 8)) * 4).astype('f4')


def check(theirs, original):
  """Compares SAELens's latents and reconstruction with ours."""
  import torch

  latents, reconstruction = map(np.asarray, small.outputs(original))
  with torch.no_grad():
    x = torch.tensor(inputs())
    values = theirs.encode(x).numpy(), theirs(x).numpy()
  for value, wanted in zip(values, (latents, reconstruction), strict=True):
    tolerance = 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize('variant', VARIANTS)
def test_saelens_opens_every_variant(tmp_path, variant):
  import sae_lens

  source = small.make(variant)
  small.export([source], tmp_path / 'out', to='saelens')
  theirs = sae_lens.SAE.load_from_disk(tmp_path / 'out/a')
  check(theirs, source.released)
  assert theirs.cfg.metadata.hook_name == 'blocks.3.hook_resid_post'
  assert theirs.cfg.metadata.model_name == 'gemma-2-2b'


@pytest.mark.parametrize('variant, skip', small.TRANSCODERS)
@pytest.mark.parametrize('origin', [small.TRANSCODER, small.WITH_GAIN])
def test_saelens_opens_transcoders(tmp_path, origin, variant, skip):
  import sae_lens

  source = small.make(variant, origin=origin, skip=skip)
  small.export([source], tmp_path / 'out', to='saelens')
  theirs = sae_lens.SAE.load_from_disk(tmp_path / 'out/a')
  check(theirs, source.released)
  assert theirs.cfg.metadata.hook_name_out == 'blocks.3.hook_mlp_out'


@pytest.mark.parametrize('kind', ['JumpReLU', 'Standard', 'TopK', 'Gated'])
def test_saelens_saves_are_read(tmp_path, kind):
  import sae_lens
  import torch

  config = getattr(sae_lens, f'{kind}SAEConfig')
  fields = {'k': 3} if kind == 'TopK' else {}
  theirs = getattr(sae_lens, f'{kind}SAE')(
      config(d_in=8, d_sae=12, apply_b_dec_to_input=True, **fields)
  )
  torch.manual_seed(0)
  with torch.no_grad():
    for name, value in theirs.named_parameters():
      scale = 0.3 if name == 'threshold' else 0.5
      value.copy_(scale * torch.randn(value.shape))
      if name == 'threshold':
        value.abs_()
  theirs.cfg.metadata.hook_name = 'blocks.2.hook_mlp_out'
  theirs.cfg.metadata.model_name = 'gemma-2-2b'
  theirs.save_model(tmp_path / 'theirs')
  released = small.only(tmp_path / 'theirs')
  check(theirs, released)
  assert released.origin == ('gemma2_2b', 2, 'mlp_out', None)


def test_the_loader_of_gemma_scope_opens_an_export(tmp_path, monkeypatch):
  import sae_lens
  from sae_lens.loading import pretrained_sae_loaders as loaders

  source = small.make()
  small.export([source], tmp_path / 'out', to='gemma_scope')
  ((path, _),) = formats.find(tmp_path / 'out').items()
  repository, _, folder = path.partition('/')

  def local(repo_id, *, filename, subfolder, **_):
    return str(tmp_path / 'out' / repo_id.split('/')[1] / subfolder / filename)

  monkeypatch.setattr(loaders, 'hf_hub_download', local)
  # The width is below those that the loader knows.
  config, state, _ = loaders.gemma_2_sae_huggingface_loader(
      f'me/{repository}', folder, cfg_overrides={'d_in': 8, 'd_sae': 12}
  )
  assert config['hook_name'] == 'blocks.3.hook_resid_post'
  config = loaders.handle_config_defaulting(config)
  theirs = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig.from_dict(config))
  theirs.load_state_dict(state)
  check(theirs, source.released)
