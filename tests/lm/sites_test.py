"""Taps as text, and the taps of the SAEs of each name."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, lm
from tests.lm import tiny

Site, Tap = lm.Site, lm.Tap
RESIDUALS = (Tap(1, Site.RESID_POST), Tap(2, Site.RESID_POST))


def test_a_tap_survives_as_text():
  for site in Site:
    for layer in (0, 7, 12, 120):
      tap = Tap(layer, site)
      assert lm.parse_tap(str(tap)) == tap
  assert str(Tap(12, Site.RESID_POST)) == 'layer_12.resid_post'


@pytest.mark.parametrize(
    'text',
    ['resid_post', 'layer_1', 'layer_01.mlp_in', 'layer_-1.mlp_in', 'layer_1.x',
     'layer_1.mlp_in ', 'transcoder'],
)  # fmt: skip
def test_other_text_is_no_tap(text):
  with pytest.raises(errors.DataError, match='names no tap.*layer_12.resid'):
    lm.parse_tap(text)


def test_keys_survive_json():
  scales = {Tap(2, Site.MLP_IN): 0.5, Tap(10, Site.ATTN_HEADS): 3.0}
  text = json.dumps(lm.to_json_keys(scales))
  assert json.loads(text).keys() == {'layer_2.mlp_in', 'layer_10.attn_heads'}
  assert lm.from_json_keys(json.loads(text)) == scales


@pytest.mark.parametrize('name', lm.SITES)
def test_the_reads_of_a_name_have_that_name(name):
  reads = lm.make_reads(name, 3, input_gain=False)
  assert (reads.name, reads.layer, reads.layers) == (name, 3, (3,))
  assert reads.is_transcoder == (name == 'transcoder')
  # Only a transcoder has an input with a gain.
  same = reads == lm.make_reads(name, 3)
  assert same == (name != 'transcoder')
  assert reads.stated_input_gain is (False if name == 'transcoder' else None)


def test_an_unknown_name_is_refused():
  with pytest.raises(errors.UserError, match="'mlp' is unknown; sites: resid"):
    lm.make_reads('mlp', 0)


def test_a_transcoder_reads_before_the_mlp_and_writes_after_it():
  reads = lm.make_reads('transcoder', 3)
  assert reads.input == Tap(3, Site.MLP_IN)
  assert reads.target == Tap(3, Site.MLP_OUT)
  assert reads.taps == (reads.input, reads.target)


def test_several_taps_have_no_single_input_target_or_layer():
  reads = lm.Reads(RESIDUALS, RESIDUALS)
  assert reads.taps == RESIDUALS and reads.layers == (1, 2)
  assert not reads.is_transcoder
  assert reads.name == 'layer_1.resid_post+layer_2.resid_post'
  for name in ('input', 'target', 'layer'):
    with pytest.raises(errors.UserError, match=r'layer_1\.resid_post\+layer_2'):
      getattr(reads, name)


def test_reads_without_taps_or_with_a_repeated_tap_are_refused():
  with pytest.raises(ValueError, match='at least one'):
    lm.Reads((), RESIDUALS)
  with pytest.raises(ValueError, match='repeated: layer_1'):
    lm.Reads((RESIDUALS[0], RESIDUALS[0]), RESIDUALS)


def test_slices_partition_the_concatenated_activations_in_order():
  widths = {RESIDUALS[0]: 4, RESIDUALS[1]: 3, Tap(0, Site.MLP_IN): 2}
  taps = (RESIDUALS[1], Tap(0, Site.MLP_IN), RESIDUALS[0])
  parts = {tap: np.full((5, widths[tap]), i) for i, tap in enumerate(taps)}
  x = np.concatenate([parts[tap] for tap in taps], axis=1)
  slices = lm.slices_of(taps, widths)
  assert list(slices) == list(taps)
  for tap, part in slices.items():
    np.testing.assert_array_equal(x[:, part], parts[tap])


def test_the_gain_of_each_input_is_that_of_its_layer():
  params = tiny.model().params
  reads = lm.Reads(
      inputs=(
          Tap(2, Site.MLP_IN),
          Tap(1, Site.ATTN_HEADS),
          Tap(0, Site.MLP_IN),
      ),
      targets=(Tap(2, Site.MLP_OUT),),
      input_gain=False,
  )
  gains = lm.input_gains(tiny.CONFIG, params, reads)
  scales = [params[f'layer_{n}']['pre_ffw_norm']['scale'] for n in (2, 0)]
  expected = np.concatenate([1 + scales[0], np.ones(32), 1 + scales[1]])
  np.testing.assert_array_equal(gains, expected)
  assert gains.dtype == jnp.float32
