"""The object for SAEBench computes our latents and names its hook.

The environment is that of `saelens_test.py`.
"""

import pytest

from jumprelu import errors
from jumprelu.release.exports import saebench_adapter
from tests.readers import saelens_test
from tests.release.exports import small

pytestmark = pytest.mark.readers


@pytest.mark.parametrize('variant', ['jumprelu', 'gated', 'batch_topk'])
def test_the_object_computes_the_saes_latents(tmp_path, variant):
  source = small.make(variant)
  small.export([source], tmp_path / 'out', to='saelens')
  adapted = saebench_adapter.load(tmp_path / 'out' / 'a')
  saelens_test.check(adapted, source.released)
  assert adapted.cfg.hook_name == 'blocks.3.hook_resid_post'
  assert adapted.cfg.hook_layer == 3 and adapted.cfg.d_sae == 12
  assert adapted.cfg.to_dict()['model_name'] == 'gemma-2-2b'
  assert adapted.W_dec.shape == (12, 8) and str(adapted.device) == 'cpu'


def test_a_transcoder_is_refused(tmp_path):
  source = small.make(origin=small.TRANSCODER)
  small.export([source], tmp_path / 'out', to='saelens')
  with pytest.raises(errors.UserError, match='is a transcoder'):
    saebench_adapter.load(tmp_path / 'out')
