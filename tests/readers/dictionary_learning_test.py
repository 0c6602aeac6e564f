"""dictionary_learning 0.1 opens our exports, and our reader opens its saves.

The environment is that of `saelens_test.py` with dictionary-learning==0.1.0.
"""

import json

import numpy as np
import pytest

from jumprelu import saes
from tests.readers import saelens_test
from tests.release.exports import small

pytestmark = pytest.mark.readers


@pytest.mark.parametrize('variant', list(saes.VARIANTS))
def test_the_library_opens_every_variant(tmp_path, variant):
  from dictionary_learning import utils

  source = small.make(variant)
  small.export([source], tmp_path / 'out', to='dictionary_learning')
  theirs, config = utils.load_dictionary(str(tmp_path / 'out/a'), device='cpu')
  saelens_test.check(theirs, source.released)
  assert config['trainer']['lm_name'] == 'google/gemma-2-2b'


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
def test_saves_of_the_library_are_read(tmp_path, kind):
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
  saelens_test.check(theirs, released)
  assert released.origin == ('gemma2_2b', 2, 'resid_post', None)
  assert np.asarray(small.outputs(released)[0]).any()
