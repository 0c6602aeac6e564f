"""The forward pass: taps, splices and packed documents."""

import dataclasses
import functools
import itertools
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.lm import attention, gemma
from tests.lm import tiny

Site, Tap = lm.Site, lm.Tap
ALL_TAPS = tuple(
    Tap(layer, site) for layer, site in itertools.product(range(4), Site)
)


@functools.cache
def clean_taps():
  """Returns every tap of the tiny model on the first batch."""
  return run_all(tiny.model(), tiny.batch())[1]


def run_all(model, batch, **kwargs):
  """Returns the last residual stream and every tap, from a new `jit`."""
  return jax.jit(
      lambda params, tokens: gemma.run(
          model.config,
          params,
          tokens,
          **batch.kwargs,
          taps=frozenset(ALL_TAPS),
          **kwargs,
      )
  )(model.params, batch.tokens)


class ForwardTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.model = tiny.model()
    self.batch = tiny.batch()

  def test_our_forward_pass_equals_the_packages(self):
    self.assertLess(lm.self_check(self.model), 1e-5)

  def test_self_check_detects_a_different_architecture(self):
    wrong = dataclasses.replace(tiny.CONFIG, attention_softcap=1e-2)
    broken = dataclasses.replace(self.model, config=wrong)
    original = gemma.package_logits

    def with_the_right_cap(config, params, tokens):
      right = dataclasses.replace(config, attention_softcap=50.0)
      return original(right, params, tokens)

    gemma.package_logits = with_the_right_cap
    try:
      with self.assertRaisesRegex(errors.NumericalError, 'our forward pass'):
        lm.self_check(broken)
    finally:
      gemma.package_logits = original

  def test_non_finite_weights_are_named(self):
    damaged = jax.tree.map(lambda x: x, self.model.params)
    norm = damaged['layer_1']['pre_ffw_norm']
    norm['scale'] = norm['scale'].at[3].set(float('nan'))
    broken = dataclasses.replace(self.model, params=damaged)
    with self.assertRaisesRegex(
        errors.DataError, '1 of its tensors .* layer_1/pre_ffw_norm/scale'
    ):
      lm.self_check(broken)

  @parameterized.parameters(0.5, float('nan'))
  def test_self_check_names_the_attention_kernel_if_it_differs(self, wrong):
    with mock.patch.object(attention, 'self_check', lambda config: wrong):
      with self.assertRaises(errors.NumericalError) as caught:
        lm.self_check(self.model)
    message = str(caught.exception)
    self.assertIn('attention kernel', message)
    self.assertIn(f'{wrong:.1e} of the largest output', message)
    self.assertNotIn('gemma package', message)

  def test_every_tap_is_visited_and_has_its_shape(self):
    values = clean_taps()
    self.assertEqual(set(values), set(ALL_TAPS))
    for tap, value in values.items():
      width = 32 if tap.site is Site.ATTN_HEADS else 16
      self.assertEqual(value.shape, (3, 12, width), tap)

  def test_sites_are_those_of_the_paper(self):
    values = clean_taps()
    prefixes = tiny.prefixes(self.model.params, layers=tuple(range(4)))
    for layer, before in enumerate(prefixes):
      block = self.model.params[f'layer_{layer}']
      resid = np.asarray(values[Tap(layer, Site.RESID_POST)], np.float64)
      mlp_out = np.asarray(values[Tap(layer, Site.MLP_OUT)], np.float64)
      middle = resid - mlp_out  # Before the MLP joins the residual stream.
      gain = 1 + np.asarray(block['pre_ffw_norm']['scale'], np.float64)
      mlp_in = middle / np.sqrt((middle**2).mean(-1, keepdims=True) + 1e-6)
      np.testing.assert_allclose(
          values[Tap(layer, Site.MLP_IN)], mlp_in * gain[None, None], atol=2e-5
      )
      heads = np.asarray(values[Tap(layer, Site.ATTN_HEADS)], np.float64)
      w_out = np.asarray(block['attn']['attn_vec_einsum']['w'], np.float64)
      attended = heads @ w_out.reshape(-1, w_out.shape[-1])
      gain = 1 + np.asarray(block['post_attention_norm']['scale'], np.float64)
      attended /= np.sqrt((attended**2).mean(-1, keepdims=True) + 1e-6)
      np.testing.assert_allclose(
          middle, np.asarray(before) + attended * gain[None, None], atol=2e-5
      )

  def test_peer_defect_21_no_layer_above_the_tap_is_needed(self):
    # Only the lower layers have parameters, so another layer would raise.
    params = {
        key: value
        for key, value in self.model.params.items()
        if key in ('embedder', 'layer_0', 'layer_1')
    }
    taps = (Tap(1, Site.RESID_POST), Tap(0, Site.MLP_IN))
    short = jax.jit(
        lambda params, tokens: lm.activations(
            self.model, params, tokens, **self.batch.kwargs, taps=taps
        )
    )(params, self.batch.tokens)
    full = clean_taps()
    for tap in taps:
      np.testing.assert_allclose(short[tap], full[tap], rtol=1e-5, atol=1e-5)

  def test_a_tap_outside_of_the_blocks_that_run_is_an_error(self):
    with self.assertRaisesRegex(ValueError, 'outside of blocks'):
      lm.activations(
          self.model,
          self.model.params,
          self.batch.tokens,
          **self.batch.kwargs,
          taps=(Tap(4, Site.MLP_OUT),),
      )

  def test_packed_documents_equal_separate_ones(self):
    long, short = tiny.batch(1, 12, seed=1), tiny.batch(1, 7, seed=2)
    _, first = run_all(self.model, long)
    _, second = run_all(self.model, short)
    joined = tiny.Batch(
        *(
            jnp.concatenate([a, b], axis=1)
            for a, b in (
                (long.tokens, short.tokens),
                (long.positions, short.positions),
                (long.segments, 2 * short.segments),
            )
        )
    )
    _, packed = run_all(self.model, joined)
    for tap in ALL_TAPS:
      apart = np.concatenate([first[tap], second[tap]], axis=1)
      np.testing.assert_allclose(packed[tap], apart, rtol=1e-4, atol=2e-5)

  def test_later_tokens_do_not_change_earlier_activations(self):
    changed = dataclasses.replace(
        self.batch, tokens=self.batch.tokens.at[:, 8:].set(5)
    )
    before = clean_taps()
    _, after = run_all(self.model, changed)
    for tap in ALL_TAPS:
      np.testing.assert_array_equal(before[tap][:, :8], after[tap][:, :8])
      self.assertTrue(np.any(before[tap][:, 8:] != after[tap][:, 8:]))


class SpliceTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.model = tiny.model()
    self.batch = tiny.batch()

  @parameterized.parameters(*Site)
  def test_identity_splice_leaves_the_loss_unchanged(self, site):
    clean = tiny.reference_losses()
    spliced = tiny.clean_losses(
        self.model, self.batch, splice={Tap(1, site): lambda x: x}
    )
    np.testing.assert_array_equal(clean, spliced)

  @parameterized.parameters(*Site)
  def test_zero_splice_changes_the_loss_after_a_clean_call(self, site):
    clean = tiny.reference_losses()
    spliced = tiny.clean_losses(
        self.model, self.batch, splice={Tap(1, site): jnp.zeros_like}
    )
    again = tiny.clean_losses(self.model, self.batch)
    self.assertGreater(float(jnp.abs(clean - spliced).max()), 1e-2)
    np.testing.assert_array_equal(clean, again)

  def test_two_splices_differ(self):
    double, half = (
        tiny.clean_losses(
            self.model,
            self.batch,
            splice={Tap(1, Site.MLP_OUT): lambda x, k=k: k * x},
        )
        for k in (2.0, 0.5)
    )
    self.assertGreater(float(jnp.abs(double - half).max()), 1e-3)

  @parameterized.parameters(*Site)
  def test_a_splice_changes_later_layers_only(self, site):
    clean = clean_taps()
    _, spliced = run_all(
        self.model, self.batch, splice={Tap(2, site): jnp.zeros_like}
    )
    for tap in ALL_TAPS:
      same = np.array_equal(clean[tap], spliced[tap])
      if tap.layer < 2:
        self.assertTrue(same, tap)
      if tap.layer > 2:
        self.assertFalse(same, tap)

  @parameterized.parameters(*Site)
  def test_losses_from_a_prefix_equal_those_of_a_whole_pass(self, site):
    splice = {Tap(2, site): lambda x: 0.5 * x}
    whole = tiny.clean_losses(self.model, self.batch, splice=splice)
    (inputs,) = tiny.prefixes(self.model.params, layers=(2,))
    rest = tiny.clean_losses(
        self.model, self.batch, splice=splice, inputs=inputs, first_layer=2
    )
    np.testing.assert_allclose(whole, rest, rtol=1e-5, atol=1e-5)

  def test_gradients_flow_through_a_splice(self):
    def loss(scale):
      return tiny.clean_losses(
          self.model,
          self.batch,
          splice={Tap(1, Site.RESID_POST): lambda x: scale * x},
      ).sum()

    slope = (loss(1.005) - loss(0.995)) / 0.01
    np.testing.assert_allclose(jax.grad(loss)(1.0), slope, rtol=0.02)
