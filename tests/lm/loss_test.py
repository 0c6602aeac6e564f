"""Next-token losses, and loading models by name."""

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

  def test_targets_stay_within_a_document(self):
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 2, 3, 3, 3, 3]])
    expected = [[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 0]]
    np.testing.assert_array_equal(lm.target_mask(segments), expected)

  def test_the_error_for_an_unknown_model_lists_the_known_ones(self):
    with self.assertRaisesRegex(errors.UserError, 'gemma2_nano'):
      lm.load('gemma3_nano')
