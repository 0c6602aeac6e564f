"""dictionary_learning opens our exports, and our reader opens its saves."""

import json

import numpy as np
import pytest

from jumprelu import saes
from tests.release.exports import small

pytestmark = pytest.mark.readers

TOOL = 'dictionary-learning'


@pytest.mark.parametrize('variant', list(saes.VARIANTS))
def test_the_library_opens_every_variant(tmp_path, activations, agree, variant):
  from dictionary_learning import utils

  for d_in in (8, 128):
    source = small.make(variant, d_in=d_in)
    out = tmp_path / str(d_in)
    small.export([source], out, to='dictionary_learning')
    theirs, config = utils.load_dictionary(str(out / 'a'), device='cpu')
    agree(TOOL, theirs, source.released)
  agree(TOOL, theirs, source.released, activations['resid_post'])
  assert config['trainer']['lm_name'] == 'google/gemma-2-2b'


def test_the_library_opens_the_demos_suite(tmp_path, suite, activations, agree):
  from dictionary_learning import utils

  sources = [s for s in suite.values() if not s.transcodes]
  small.export(sources, tmp_path / 'out', to='dictionary_learning')
  for source in sources:
    folder = str(tmp_path / 'out' / source.path)
    theirs, _ = utils.load_dictionary(folder, device='cpu')
    for x in (None, activations[str(source.released.origin.site)]):
      agree(TOOL, theirs, source.released, x)


@pytest.mark.parametrize(
    'kind',
    [
        'AutoEncoder',
        'AutoEncoderNew',
        'GatedAutoEncoder',
        'JumpReluAutoEncoder',
        'AutoEncoderTopK',
        'BatchTopKSAE',
    ],
)
def test_saves_of_the_library_are_read(tmp_path, agree, kind):
  from dictionary_learning import utils
  import torch

  torch.manual_seed(0)
  arguments = (8, 12, 3) if 'TopK' in kind else (8, 12)
  theirs = getattr(utils, kind)(*arguments)
  with torch.no_grad():
    for name, value in theirs.named_parameters():
      value.copy_(0.5 * torch.randn(value.shape))
      if name == 'threshold':
        value.abs_()
    if kind == 'BatchTopKSAE':
      theirs.threshold.fill_(0.4)
  torch.save(theirs.state_dict(), tmp_path / 'ae.pt')
  trainer = {
      'dict_class': kind, 'k': 3, 'lm_name': 'google/gemma-2-2b', 'layer': 2,
      'submodule_name': 'resid_post_layer_2',
  }  # fmt: skip
  (tmp_path / 'config.json').write_text(json.dumps({'trainer': trainer}))
  # The library changes some SAEs on loading.
  theirs, _ = utils.load_dictionary(str(tmp_path), device='cpu')
  released = small.only(tmp_path)
  agree(TOOL, theirs, released)
  assert released.origin == ('gemma2_2b', 2, 'resid_post', None)
  assert np.asarray(small.outputs(released)[0]).any()
