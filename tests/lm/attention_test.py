"""The forms of attention agree, and some save the memory of all scores."""

import dataclasses
import itertools
import math
import re
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, sharding
from jumprelu.lm import attention, gemma
from tests.lm import tiny

Site, Tap = lm.Site, lm.Tap
TAPS = frozenset(itertools.starmap(Tap, itertools.product(range(2), Site)))
# The size of heads fits the kernel, and some documents exceed the window.
CONFIG = dataclasses.replace(
    tiny.CONFIG, name='wide', head_dim=128, layers=2, window=150, context=1024
)


def packed(length):
  """Returns two rows: three documents, and two documents with padding."""
  segments = np.ones((2, length), np.int32)
  segments[0, 180:] = 2
  segments[0, 200:] = 3
  segments[1, 170:] = 2
  segments[1, -40:] = 0
  positions = np.zeros_like(segments)
  for row, numbers in enumerate(segments):
    for number in set(numbers):
      inside = numbers == number
      positions[row, inside] = np.arange(inside.sum())
  tokens = np.random.default_rng(0).integers(4, tiny.CONFIG.vocab, (2, length))
  return tiny.Batch(*map(jnp.asarray, (tokens, positions, segments)))


def run(batch, form, *, mesh=None, splice=None):
  """Returns every tap, without the positions of padding."""
  model = tiny.model(CONFIG)
  config = dataclasses.replace(CONFIG, attention=form)

  @jax.jit
  def forward(params, tokens):
    return gemma.run(
        config,
        params,
        tokens,
        **batch.kwargs,
        taps=TAPS,
        splice=splice,
        mesh=mesh,
    )[1]

  values = jax.device_get(forward(model.params, batch.tokens))
  return {tap: x[np.asarray(batch.segments) > 0] for tap, x in values.items()}


class AttentionTest(parameterized.TestCase):

  # With 300 positions the last chunk is not full; 384 are three tiles of the
  # kernel.
  @parameterized.parameters(('chunked', 300), ('splash', 384))
  def test_every_tap_equals_the_packages(self, form, length):
    batch = packed(length)
    expected, actual = run(batch, 'dense'), run(batch, form)
    for tap in TAPS:
      np.testing.assert_allclose(
          actual[tap], expected[tap], rtol=1e-5, atol=3e-5, err_msg=str(tap)
      )

  @parameterized.parameters('chunked', 'splash')
  def test_sharded_attention_equals_the_packages(self, form):
    batch = packed(256)
    # `tensor` has more devices than there are heads of keys and values (2).
    mesh = sharding.make_mesh(sharding.Config(data=2, tensor=4))
    expected, actual = run(batch, 'dense'), run(batch, form, mesh=mesh)
    for tap in TAPS:
      np.testing.assert_allclose(
          actual[tap], expected[tap], rtol=1e-5, atol=3e-5, err_msg=str(tap)
      )

  def test_a_splice_of_heads_has_the_same_effect_in_every_form(self):
    batch = packed(256)
    splice = {Tap(0, Site.ATTN_HEADS): lambda x: 0 * x}
    expected = run(batch, 'dense', splice=splice)
    after = Tap(0, Site.RESID_POST)
    clean = run(batch, 'dense')[after]
    self.assertGreater(np.abs(expected[after] - clean).max(), 0.1)
    for form in ('chunked', 'splash'):
      actual = run(batch, form, splice=splice)[after]
      np.testing.assert_allclose(actual, expected[after], rtol=1e-5, atol=3e-5)

  @parameterized.parameters('chunked', 'splash')
  def test_gradients_are_the_packages(self, form):
    batch = packed(256)
    model = tiny.model(CONFIG)
    weights = np.random.default_rng(1).normal(size=(2, 256, CONFIG.d_model))
    # The outputs at padding differ between the forms and are not used.
    weights *= np.asarray(batch.segments > 0)[..., None]

    def gradient(form):
      config = dataclasses.replace(CONFIG, attention=form)

      def total(x):
        out, _ = gemma.run(config, model.params, x, **batch.kwargs)
        return (out * weights).sum()

      return jax.jit(jax.grad(total))(jnp.asarray(weights, jnp.float32))

    expected = gradient('dense')
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        gradient(form) / scale, expected / scale, atol=1e-5
    )

  def test_a_program_for_1024_positions_has_no_array_of_all_scores(self):
    shape = jax.ShapeDtypeStruct((2, 1024), jnp.int32)
    all_scores = 2 * CONFIG.heads * 1024**2

    def largest(form):
      config = dataclasses.replace(CONFIG, attention=form)
      program = jax.jit(
          lambda params, tokens, positions, segments: gemma.run(
              config, params, tokens, positions=positions, segments=segments
          )[0]
      )
      params = tiny.model(CONFIG).params
      text = program.lower(params, shape, shape, shape).compile().as_text()
      arrays = re.findall(r'\b[a-z]+\d*\[([\d,]+)\]', text)
      return max(math.prod(map(int, x.split(','))) for x in arrays)

    self.assertGreaterEqual(largest('dense'), all_scores)
    self.assertLess(largest('auto'), all_scores / 4)

  def test_self_check_detects_a_wrong_kernel(self):
    config = dataclasses.replace(CONFIG, attention='splash')
    self.assertLess(attention.self_check(config), 1e-5)
    self.assertEqual(attention.self_check(CONFIG), 0)  # No kernel on a CPU.
    splash = attention.splash

    def without_windows(*args, window, **options):
      return splash(*args, window=None, **options)

    with mock.patch.object(attention, 'splash', without_windows):
      self.assertGreater(attention.self_check(config), 0.1)

  @parameterized.parameters((4,), (8192, 64))
  def test_a_difference_is_nan_if_any_value_is(self, *shape):
    x = jnp.ones(shape)
    self.assertEqual(attention.relative_difference(1.5 * x, x), 0.5)
    nan = x.at[(0,) * len(shape)].set(jnp.nan)
    self.assertTrue(np.isnan(attention.relative_difference(nan, x)))

  def test_self_check_detects_a_kernel_that_returns_nan(self):
    config = dataclasses.replace(CONFIG, attention='splash')

    def broken(q, k, v, **options):
      return jnp.full_like(q, jnp.nan)

    with mock.patch.object(attention, 'splash', broken):
      self.assertTrue(np.isnan(attention.self_check(config)))

  def test_auto_is_the_kernel_on_a_tpu_if_the_shapes_fit(self):
    self.assertEqual(attention.choose(CONFIG, 256, 'tpu'), 'dense')
    self.assertEqual(attention.choose(CONFIG, 1024, 'tpu'), 'splash')
    self.assertEqual(attention.choose(CONFIG, 1000, 'tpu'), 'chunked')
    self.assertEqual(attention.choose(tiny.CONFIG, 1024, 'tpu'), 'chunked')
    self.assertEqual(attention.choose(CONFIG, 1024, 'gpu'), 'chunked')
    self.assertEqual(attention.choose(CONFIG, 1024, 'cpu'), 'chunked')

  @parameterized.parameters(('splash', 'multiples of 128'), ('fast', 'one of'))
  def test_an_impossible_form_is_an_error(self, form, message):
    config = dataclasses.replace(CONFIG, attention=form)
    with self.assertRaisesRegex(ValueError, message):
      attention.choose(config, 300, 'tpu')
