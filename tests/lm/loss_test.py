"""Next-token losses, and loading models by name."""

import dataclasses

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.lm import loss as loss_lib
from tests.lm import tiny


class LossTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.model = tiny.model()
    self.batch = tiny.batch()

  def test_losses_equal_a_float64_log_softmax(self):
    logits = jax.jit(
        lambda params, tokens: lm.logits(
            self.model, params, tokens, **self.batch.kwargs
        )
    )(self.model.params, self.batch.tokens)
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    targets = np.asarray(self.batch.tokens)[:, 1:, None]
    expected = -np.take_along_axis(log_p[:, :-1], targets, axis=-1)[..., 0]
    losses = tiny.reference_losses()
    np.testing.assert_allclose(losses[:, :-1], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(losses[:, -1], 0)

  def test_logits_in_chunks_equal_logits_at_once(self):
    expected = tiny.reference_losses()
    whole = loss_lib._CHUNK_BYTES
    loss_lib._CHUNK_BYTES = 3 * 4 * 64 * 4  # Four positions at a time.
    try:
      chunked = tiny.clean_losses(self.model, self.batch)
    finally:
      loss_lib._CHUNK_BYTES = whole
    np.testing.assert_allclose(chunked, expected, rtol=1e-6, atol=1e-6)

  def test_a_cpu_computes_512_rows_of_logits_at_a_time(self):
    self.assertEqual(loss_lib._num_chunks((4, 512), 1000, None), 4)
    # 2^28 bytes are 256 rows of this vocabulary.
    self.assertEqual(loss_lib._num_chunks((4, 512), 262_144, None), 8)

  def test_losses_of_uncapped_logits_equal_a_float64_log_softmax(self):
    rng = np.random.default_rng(0)
    raw = 200 * rng.normal(size=(3, 5, 40)).astype(np.float32)
    targets = rng.integers(0, 40, (3, 5))
    for cap in (None, 30.0):
      config = dataclasses.replace(tiny.CONFIG, logits_softcap=cap)
      losses = loss_lib._of_uncapped(
          config, jnp.asarray(raw), jnp.asarray(targets)
      )
      logits = raw.astype(np.float64)
      if cap:
        logits = cap * np.tanh(logits / cap)
      top = logits.max(-1, keepdims=True)
      total = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
      target = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
      np.testing.assert_allclose(losses, total - target, rtol=1e-5, atol=1e-4)

  def test_targets_stay_within_a_document(self):
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 2, 3, 3, 3, 3]])
    expected = [[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 0]]
    np.testing.assert_array_equal(lm.target_mask(segments), expected)

  def test_the_error_for_an_unknown_model_lists_the_known_ones(self):
    with self.assertRaisesRegex(errors.UserError, 'gemma2_nano'):
      lm.load('gemma3_nano')
