"""Claims that hold for every variant in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import saes
from tests.saes import small


@pytest.fixture(params=small.variants())
def variant(request):
  return request.param


# Transcoders and skip terms are tested on one variant, because their code does
# not depend on it. A Gated SAE may have two encoders.
_UNTIED = pytest.param('untied', marks=pytest.mark.slow)


@pytest.fixture(params=[*small.variants(), 'transcoder', 'skip', _UNTIED])
def sae(request):
  others = {'transcoder': 'jumprelu', 'skip': 'jumprelu', 'untied': 'gated'}
  variant = others.get(request.param, request.param)
  # A wide kernel gives every threshold a gradient.
  return small.make(
      variant,
      transcoder=request.param in ('transcoder', 'skip'),
      skip=request.param == 'skip',
      bandwidth=0.5,
      tied=request.param != 'untied',
  )


def test_initial_parameters_follow_gemma_scope(sae):
  params = small.init(sae, jax.random.key(0))
  shapes = {
      'W_enc': (small.D_IN, small.WIDTH),
      'b_enc': (small.WIDTH,),
      'W_dec': (small.WIDTH, sae.d_out),
      'b_dec': (sae.d_out,),
  }
  for name, shape in shapes.items():
    assert (params[name].shape, params[name].dtype) == (shape, jnp.float32)
  for unit in (params['W_dec'], params['W_enc'].T):
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1.0, rtol=1e-6)
  assert not params['b_enc'].any()
  assert not params['b_dec'].any()
  # Rows are uniform over directions, so half of the entries are positive.
  assert 0.3 < (params['W_dec'] > 0).mean() < 0.7


def test_only_a_transcoders_encoder_is_drawn_independently(variant):
  tied = small.init(small.make(variant), jax.random.key(0))
  np.testing.assert_array_equal(tied['W_enc'], tied['W_dec'].T)
  config = saes.VARIANTS[variant][1]()
  square = saes.make_sae(
      variant, config, d_in=6, d_out=6, width=small.WIDTH, transcoder=True
  )
  free = small.init(square, jax.random.key(0))
  assert np.abs(free['W_enc'] - free['W_dec'].T).max() > 0.1


def test_members_start_from_their_own_seed_and_numbers():
  sae = small.make('jumprelu')
  keys = jax.random.split(jax.random.key(1), 3)
  starts = np.array([0.1, 0.2, 0.4], np.float32)
  members = jax.jit(
      jax.vmap(
          lambda k, t: sae.init_params(
              k, initial_threshold=t, target_l0=small.TARGET_L0
          )
      )
  )(keys, starts)
  for i in range(3):
    solo = small.init(sae, keys[i], starts[i])
    for name, value in solo.items():
      np.testing.assert_allclose(members[name][i], value, rtol=1e-6)


def test_gradients_are_finite_and_reach_every_parameter(sae):
  params = small.trained_like(sae)
  parts, grads = small.gradients(
      sae,
      params,
      small.rows(1, small.D_IN),
      small.rows(2, sae.d_out),
      np.ones(small.ROWS, bool),
  )
  assert jax.tree.structure(grads) == jax.tree.structure(params)
  for name, gradient in grads.items():
    assert np.isfinite(gradient).all(), name
    assert (np.abs(gradient).max() > 0) == (name not in sae.untrained), name
  assert parts.fired.shape == (small.WIDTH,)


def test_dropped_rows_have_no_influence(sae):
  params = small.trained_like(sae)
  inputs, targets = small.rows(1, small.D_IN), small.rows(2, sae.d_out)
  keep = np.arange(small.ROWS) % 3 != 0
  kept = np.flatnonzero(keep)
  expected = small.gradients(
      sae,
      params,
      inputs[kept],
      targets[kept],
      np.ones(len(kept), bool),
  )
  # The caller zeroes dropped rows by `where`, which removes NaN and huge values.
  for junk in (np.float32(np.nan), np.float32(np.inf), np.float32(1e30)):
    dirty_inputs = np.where(keep[:, None], inputs, junk)
    dirty_targets = np.where(keep[:, None], targets, junk)
    got = small.gradients(
        sae,
        params,
        np.where(keep[:, None], dirty_inputs, np.float32(0)),
        np.where(keep[:, None], dirty_targets, np.float32(0)),
        keep,
    )
    for a, b in zip(
        jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_finite_values_in_dropped_rows_change_no_bit(sae):
  params = small.trained_like(sae)
  inputs, targets = small.rows(1, small.D_IN), small.rows(2, sae.d_out)
  keep = np.arange(small.ROWS) % 3 != 0
  zeroed = small.gradients(
      sae,
      params,
      np.where(keep[:, None], inputs, np.float32(0)),
      np.where(keep[:, None], targets, np.float32(0)),
      keep,
  )
  # The values are in the kernel, above the threshold, with a large error.
  junk = small.gradients(
      sae,
      params,
      inputs,
      np.where(keep[:, None], targets, np.float32(1e3)),
      keep,
  )
  jax.tree.map(np.testing.assert_array_equal, zeroed, junk)


def test_a_batch_without_kept_rows_is_finite(sae):
  params = small.trained_like(sae)
  parts, grads = small.gradients(
      sae,
      params,
      np.zeros((small.ROWS, small.D_IN), np.float32),
      np.zeros((small.ROWS, sae.d_out), np.float32),
      np.zeros(small.ROWS, bool),
  )
  assert parts.l0 == 0
  assert parts.reconstruction == 0
  assert not parts.fired.any()
  for gradient in jax.tree.leaves(grads):
    np.testing.assert_array_equal(gradient, 0.0)


def test_fired_counts_and_l0_are_those_of_the_latents(sae):
  params, inputs = small.trained_like(sae), small.rows(1, small.D_IN)
  keep = np.arange(small.ROWS) % 2 == 0
  parts, _ = small.gradients(
      sae, params, inputs, small.rows(2, sae.d_out), keep
  )
  pre_acts = small.run(sae, params, inputs)[0]
  latents = jax.jit(sae.batch_latents)(
      params, pre_acts, inputs=inputs, keep=keep
  )
  active = np.asarray(latents)[::2] != 0
  assert parts.fired.dtype == jnp.int32
  np.testing.assert_array_equal(parts.fired, active.sum(axis=0))
  np.testing.assert_allclose(parts.l0, active.sum(axis=1).mean(), rtol=1e-6)


def test_bfloat16_inputs_give_float32_pre_activations(sae):
  params = small.trained_like(sae)
  inputs = small.rows(1, small.D_IN).astype(jnp.bfloat16)
  got, _, _ = small.run(sae, params, inputs)
  expected, _, _ = small.run(sae, params, inputs.astype(np.float32))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_any_number_of_leading_axes_is_a_batch(sae):
  params, inputs = small.trained_like(sae), small.rows(1, small.D_IN)
  _, _, flat = small.run(sae, params, inputs)
  _, _, got = small.run(sae, params, inputs.reshape(4, 10, small.D_IN))
  np.testing.assert_allclose(got, flat.reshape(4, 10, -1), atol=1e-6)


def test_a_batch_sharded_over_8_devices_gives_the_same_step(sae):
  params = small.trained_like(sae)
  inputs, targets = small.rows(1, small.D_IN), small.rows(2, sae.d_out)
  keep = np.arange(small.ROWS) % 3 != 0
  expected = small.gradients(sae, params, inputs, targets, keep)
  mesh = jax.make_mesh(
      (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  got = small.gradients(
      sae, params, *jax.device_put((inputs, targets, keep), by_row)
  )
  np.testing.assert_array_equal(got[0].fired, expected[0].fired)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


def test_members_of_a_group_step_as_they_would_alone(sae):
  members = [small.trained_like(sae, seed) for seed in range(3)]
  inputs, targets = small.rows(1, small.D_IN), small.rows(2, sae.d_out)
  keep = np.ones(small.ROWS, bool)
  coefficients = np.array([0.0, 0.01, 0.1], np.float32)
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
  got = jax.jit(
      jax.vmap(
          lambda p, c: small.gradients(
              sae, p, inputs, targets, keep, coefficient=c
          )
      )
  )(stacked, coefficients)
  for i, params in enumerate(members):
    solo = small.gradients(
        sae, params, inputs, targets, keep, coefficient=coefficients[i]
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(solo), strict=True):
      np.testing.assert_allclose(a[i], b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_folding_leaves_latents_and_reconstruction_unchanged(sae):
  input_scale, target_scale = 17.0, 0.3 if sae.transcoder else 17.0
  params = small.trained_like(sae)
  if 'k' not in sae.untrained:
    # Decoders that are free of the constraint are folded as well.
    stretch = np.linspace(0.5, 2.0, small.WIDTH, dtype=np.float32)
    params['W_dec'] = params['W_dec'] * stretch[:, None]
  norms = np.linalg.norm(params['W_dec'], axis=-1)
  scaled = small.rows(1, small.D_IN)
  _, latents, reconstruction = small.run(sae, params, scaled)

  folded, raw = sae.fold(
      jax.tree.map(jnp.asarray, params),
      input_scale=input_scale,
      target_scale=target_scale,
  )
  _, raw_latents, raw_reconstruction = small.run(
      folded, raw, scaled * input_scale
  )

  assert not folded.config.pre_encoder_bias
  start = functools.partial(small.init, folded)
  shapes = jax.eval_shape(start, jax.random.key(0))
  assert jax.tree.map(np.shape, raw) == jax.tree.map(np.shape, shapes)
  np.testing.assert_allclose(
      np.linalg.norm(raw['W_dec'], axis=-1), 1.0, rtol=1e-6
  )
  np.testing.assert_array_equal(raw_latents > 0, latents > 0)
  expected = target_scale * norms[None, :] * latents
  np.testing.assert_allclose(raw_latents, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
      raw_reconstruction, target_scale * reconstruction, rtol=1e-4, atol=1e-4
  )


def test_a_folded_sae_equals_its_jumprelu_form(variant):
  sae = small.make(variant, bandwidth=0.5)
  params = jax.tree.map(jnp.asarray, small.trained_like(sae))
  folded, raw = sae.fold(params, input_scale=3.0, target_scale=3.0)
  inputs = 3 * small.rows(1, small.D_IN)
  _, latents, reconstruction = small.run(folded, raw, inputs)
  equal = folded.to_jumprelu(raw)
  if equal is None:
    # No thresholds produce these latents: a latent's smallest active value is
    # below its largest inactive one.
    pre_acts = small.run(folded, raw, inputs)[0]
    on = np.where(latents > 0, pre_acts, np.inf).min(axis=0)
    off = np.where(latents > 0, -np.inf, pre_acts).max(axis=0)
    assert (on < off).any()
    return
  as_jumprelu, arrays = equal
  assert as_jumprelu.variant == 'jumprelu'
  expected = {'W_enc', 'b_enc', 'W_dec', 'b_dec', 'threshold'}
  assert set(arrays) == expected
  assert (np.asarray(arrays['threshold']) >= 0).all()
  _, theirs, their_reconstruction = small.run(as_jumprelu, arrays, inputs)
  assert 0 < (latents > 0).mean() < 1
  np.testing.assert_allclose(theirs, latents, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
      their_reconstruction, reconstruction, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('variant', saes.VARIANTS)
def test_the_axes_of_parameters_are_those_of_their_shapes(variant):
  sae = small.make(variant, transcoder=True, skip=True)
  sizes = {
      'model': small.D_IN,
      'target_model': small.D_OUT,
      'latents': small.WIDTH,
  }
  params = small.init(sae, jax.random.key(0))
  axes = sae.param_axes()
  assert axes.keys() == params.keys()
  for name, value in params.items():
    assert value.shape == tuple(sizes[axis] for axis in axes[name]), name


def test_a_skip_term_starts_at_zero_and_adds_a_linear_map_of_the_inputs():
  sae = small.make('jumprelu', transcoder=True, skip=True)
  params = small.init(sae, jax.random.key(0))
  assert not params['W_skip'].any()
  params = small.trained_like(sae)
  assert params['W_skip'].all()
  inputs = small.rows(1, small.D_IN)
  _, latents, outputs = small.run(sae, params, inputs)
  expected = np.asarray(latents) @ params['W_dec'] + params['b_dec']
  expected = expected + inputs @ params['W_skip']
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
  with pytest.raises(TypeError, match='skip term needs `inputs` to decode'):
    sae.decode(jax.tree.map(jnp.asarray, params), latents)


def test_parameters_for_inputs_times_a_gain_include_the_skip_term():
  sae = small.make('gated', transcoder=True, skip=True, tied=False)
  params = small.trained_like(sae)
  inputs = small.rows(1, small.D_IN)
  gain = np.linspace(0.5, 2.0, small.D_IN, dtype=np.float32)
  read = sae.read_times(params, jnp.asarray(gain))
  for ours, theirs in zip(
      small.run(sae, read, inputs * gain),
      small.run(sae, params, inputs),
      strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_gain_is_refused_unless_the_pre_encoder_bias_is_folded():
  sae = small.make('jumprelu')
  params = jax.tree.map(jnp.asarray, small.trained_like(sae))
  inputs = small.rows(1, small.D_IN)
  gain = np.linspace(0.5, 2.0, small.D_IN, dtype=np.float32)
  with pytest.raises(ValueError, match='fold the SAE first'):
    sae.read_times(params, jnp.asarray(gain))
  folded, raw = sae.fold(params, input_scale=1.0, target_scale=1.0)
  read = folded.read_times(raw, jnp.asarray(gain))
  for ours, theirs in zip(
      small.run(folded, read, inputs * gain),
      small.run(folded, raw, inputs),
      strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'variant', ['matryoshka_relu', 'gated', 'relu_rescaled']
)
def test_a_variants_own_reconstructions_have_the_skip_term(variant):
  sae = small.make(variant, transcoder=True, skip=True)
  params = small.trained_like(sae)
  # No latent is active, so the biases and the skip term give these targets.
  params['b_enc'] = np.full(small.WIDTH, -1e3, np.float32)
  if 'b_mag' in params:
    params['b_mag'] = params['b_enc']
  inputs = small.rows(1, small.D_IN)
  targets = params['b_dec'] + inputs @ params['W_skip']
  keep = np.ones(small.ROWS, bool)
  parts, _ = small.gradients(sae, params, inputs, targets, keep)
  np.testing.assert_allclose(parts.reconstruction, 0, atol=1e-8)
  np.testing.assert_allclose(parts.auxiliary, 0, atol=1e-8)
