"""SAELens opens our exports, and our reader opens its saves."""

import pytest
from safetensors import numpy as safetensors

from jumprelu import saes
from jumprelu.release import formats
from tests.release.exports import small

pytestmark = pytest.mark.readers

TOOL = 'sae-lens'
VARIANTS = list(saes.VARIANTS)


@pytest.mark.parametrize('variant', VARIANTS)
def test_saelens_opens_every_variant(tmp_path, activations, agree, variant):
  import sae_lens

  sizes = {'random': 8, 'nano': 128}
  for name, d_in in sizes.items():
    source = small.make(variant, d_in=d_in)
    small.export([source], tmp_path / name, to='saelens')
    theirs = sae_lens.SAE.load_from_disk(tmp_path / name / 'a')
    agree(TOOL, theirs, source.released)
    if name == 'nano':
      agree(TOOL, theirs, source.released, activations['resid_post'])
  assert theirs.cfg.metadata.hook_name == 'blocks.3.hook_resid_post'
  assert theirs.cfg.metadata.model_name == 'gemma-2-2b'


@pytest.mark.parametrize('variant, skip', small.TRANSCODERS)
@pytest.mark.parametrize('origin', [small.TRANSCODER, small.WITH_GAIN])
def test_saelens_opens_transcoders(tmp_path, agree, origin, variant, skip):
  import sae_lens

  source = small.make(variant, origin=origin, skip=skip)
  small.export([source], tmp_path / 'out', to='saelens')
  theirs = sae_lens.SAE.load_from_disk(tmp_path / 'out/a')
  agree(TOOL, theirs, source.released)
  assert theirs.cfg.metadata.hook_name_out == 'blocks.3.hook_mlp_out'


def test_saelens_opens_the_demos_suite(tmp_path, suite, activations, agree):
  import sae_lens

  small.export(list(suite.values()), tmp_path / 'out', to='saelens')
  for path, source in suite.items():
    theirs = sae_lens.SAE.load_from_disk(tmp_path / 'out' / path)
    site = str(source.released.origin.site)
    for x in (None, activations[site]):
      agree(TOOL, theirs, source.released, x, heads=site == 'attn_heads')
    assert theirs.cfg.metadata.model_name == 'gemma2_nano'


@pytest.mark.parametrize('kind', ['JumpReLU', 'Standard', 'TopK', 'Gated'])
def test_saelens_saves_are_read(tmp_path, agree, kind):
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
  agree(TOOL, theirs, released)
  assert released.origin == ('gemma2_2b', 2, 'mlp_out', None)


def local_files(monkeypatch, out):
  """Lets the loaders of repositories read the folders below `out`."""
  from sae_lens.loading import pretrained_sae_loaders as loaders

  def local(repo_id, filename, *, subfolder='', **_):
    return str(out / repo_id.split('/')[1] / subfolder / filename)

  def shapes(repo_id, filename):
    arrays = safetensors.load_file(local(repo_id, filename))
    return {name: list(value.shape) for name, value in arrays.items()}

  monkeypatch.setattr(loaders, 'hf_hub_download', local)
  monkeypatch.setattr(loaders, 'get_safetensors_tensor_shapes', shapes)
  return loaders


def load(config, state):
  """Returns the SAE that SAELens makes of a loader's config and tensors."""
  from sae_lens.loading import pretrained_sae_loaders as loaders
  from sae_lens.registry import get_sae_class

  config = loaders.handle_config_defaulting(config)
  make, config_class = get_sae_class(config['architecture'])
  theirs = make(config_class.from_dict(config))
  theirs.load_state_dict(state)
  return theirs


def test_the_loader_of_gemma_scope_opens_an_export(
    tmp_path, monkeypatch, agree
):
  source = small.make()
  small.export([source], tmp_path / 'out', to='gemma_scope')
  ((path, _),) = formats.find(tmp_path / 'out').items()
  repository, _, folder = path.partition('/')
  loaders = local_files(monkeypatch, tmp_path / 'out')
  # The width is below those that the loader knows.
  config, state, _ = loaders.gemma_2_sae_huggingface_loader(
      f'me/{repository}', folder, cfg_overrides={'d_in': 8, 'd_sae': 12}
  )
  assert config['hook_name'] == 'blocks.3.hook_resid_post'
  agree(TOOL, load(config, state), source.released)


@pytest.mark.parametrize('skip', [None, False, True])
def test_the_loader_of_gemma_scope_2_opens_an_export(
    tmp_path, monkeypatch, agree, skip
):
  origin = small.WITH_GAIN
  if skip is None:
    origin = small.ORIGIN._replace(model='gemma3_1b')
  source = small.make(origin=origin, skip=bool(skip))
  small.export([source], tmp_path / 'out', to='gemma_scope_2')
  ((path, _),) = formats.find(tmp_path / 'out').items()
  repository, _, folder = path.partition('/')
  loaders = local_files(monkeypatch, tmp_path / 'out')
  config, state, _ = loaders.gemma_3_sae_huggingface_loader(
      f'me/{repository}', folder
  )
  assert config['model_name'].startswith('google/gemma-3-1b')
  agree(TOOL, load(config, state), source.released)
