"""Positions that splices change, and starting points of spliced passes."""

import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.data import packing
from jumprelu.evals import splice


def test_bos_eos_and_padding_stay_clean_under_ablation():
  tokens = np.array([[2, 7, 8, 1, 2, 9, 0, 0]], np.int32)
  x = np.arange(16, dtype=np.float32).reshape(1, 8, 2) + 1
  ablated = splice.replace_kept(
      jnp.asarray(x),
      jnp.zeros_like(x),
      jnp.asarray(packing.keep_mask(tokens)),
  )
  kept = [1, 2, 5]
  rest = [0, 3, 4, 6, 7]
  np.testing.assert_array_equal(ablated[0, kept], 0 * x[0, kept])
  np.testing.assert_array_equal(ablated[0, rest], x[0, rest])


def test_spliced_passes_start_at_the_last_clean_residual_stream():
  resid = lm.Site.RESID_POST
  assert splice.anchor_of(lm.Tap(3, resid)) == lm.Tap(3, resid)
  assert splice.anchor_of(lm.Tap(3, lm.Site.MLP_OUT)) == lm.Tap(2, resid)
  assert splice.anchor_of(lm.Tap(0, lm.Site.ATTN_HEADS)) is None


def test_the_clean_pass_records_inputs_targets_and_anchors():
  mlp, resid = lm.Site.MLP_OUT, lm.Site.RESID_POST
  reads = [lm.make_reads('mlp_out', 0), lm.make_reads('transcoder', 2)]
  assert splice.taps_for(reads) == {
      lm.Tap(0, mlp),
      lm.Tap(1, resid),
      lm.Tap(2, lm.Site.MLP_IN),
      lm.Tap(2, mlp),
  }
