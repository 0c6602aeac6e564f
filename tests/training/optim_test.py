"""The optimiser against NumPy and optax; the schedules against hand values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jumprelu import errors
from jumprelu.training import optim, schedules

SHAPES = {
    'W_enc': (5, 7),
    'b_enc': (7,),
    'W_dec': (7, 5),
    'b_dec': (5,),
    'log_threshold': (7,),
}


def random_params(seed, shapes):
  rng = np.random.default_rng(seed)
  params = {
      name: rng.normal(size=shape).astype(np.float32)
      for name, shape in shapes.items()
  }
  params['W_dec'] /= np.linalg.norm(params['W_dec'], axis=-1, keepdims=True)
  return params


def numpy_steps(params, gradients, rates, *, b2, eps):
  """Returns parameters and second moments in float64, after the papers."""
  params = {k: v.astype(np.float64) for k, v in params.items()}
  second = {k: np.zeros_like(v) for k, v in params.items()}
  for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
    gradient = {k: v.astype(np.float64) for k, v in gradient.items()}
    for i, row in enumerate(params['W_dec']):
      g = gradient['W_dec'][i]
      gradient['W_dec'][i] = g - (g @ row) / (row @ row) * row
    for name, g in gradient.items():
      second[name] = b2 * second[name] + (1 - b2) * g * g
      root = np.sqrt(second[name] / (1 - b2**t))
      params[name] = params[name] - rate * g / (root + eps)
    for row in params['W_dec']:
      row /= np.sqrt(row @ row)
  return params, second


# Eager steps would compile each small operation by itself.
update = jax.jit(optim.update, static_argnames='config')


def run_steps(params, gradients, rates, config):
  nu = jax.tree.map(np.zeros_like, params)
  for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
    params, nu = update(
        params,
        nu,
        gradient,
        step=jnp.int32(step),
        learning_rate=rate,
        config=config,
    )
  return params, nu


def test_several_steps_equal_an_independent_numpy_optimiser():
  params = random_params(0, SHAPES)
  gradients = [random_params(seed, SHAPES) for seed in range(1, 7)]
  rates = [1e-3, 5e-3, 1e-2, 1e-2, 1e-2, 3e-3]
  # The large eps shows where it enters the formula.
  config = optim.Config(b2=0.99, eps=1e-2)
  got, got_nu = run_steps(
      jax.tree.map(jnp.asarray, params), gradients, rates, config
  )
  expected, expected_nu = numpy_steps(
      params, gradients, rates, b2=0.99, eps=1e-2
  )
  for name in SHAPES:
    np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=2e-6)
    np.testing.assert_allclose(got_nu[name], expected_nu[name], rtol=2e-5)


def test_the_first_step_is_exact_at_the_papers_decay():
  # In float32 1 - 0.999 has a relative error of 5e-5, and the step would have
  # half of it.
  params = {'W_dec': jnp.eye(2), 'b_dec': jnp.zeros(2)}
  gradient = {'W_dec': jnp.zeros((2, 2)), 'b_dec': jnp.array([3.0, -0.5])}
  got, _ = update(
      params,
      optim.init_nu(params),
      gradient,
      step=0,
      learning_rate=0.5,
      config=optim.Config(),
  )
  np.testing.assert_allclose(got['b_dec'], [-0.5, 0.5], rtol=1e-6)


def test_parameters_without_projection_follow_optax_adam():
  params = random_params(0, SHAPES)
  gradients = [random_params(seed, SHAPES) for seed in range(1, 6)]
  got, _ = run_steps(params, gradients, [2e-3] * 5, optim.Config())
  reference = optax.adam(2e-3, b1=0.0, b2=0.999, eps=1e-8)
  state = reference.init(params)
  for gradient in gradients:
    updates, state = jax.jit(reference.update)(gradient, state)
    params = jax.tree.map(np.add, params, updates)
  for name in set(SHAPES) - {'W_dec'}:
    np.testing.assert_allclose(got[name], params[name], rtol=0, atol=1e-6)
  assert not np.allclose(got['W_dec'], params['W_dec'], atol=1e-4)


def test_decoder_rows_have_unit_norm_after_large_steps():
  params = random_params(0, SHAPES)
  gradients = [random_params(seed, SHAPES) for seed in range(1, 4)]
  got, _ = run_steps(params, gradients, [0.3] * 3, optim.Config())
  norms = np.linalg.norm(np.asarray(got['W_dec'], np.float64), axis=-1)
  np.testing.assert_allclose(norms, 1.0, atol=2e-7)


def test_the_projection_comes_before_adam():
  # A gradient parallel to the row may change neither nu nor the row.
  params = {'W_dec': jnp.array([[0.6, 0.8]])}
  got, nu = update(
      params,
      optim.init_nu(params),
      {'W_dec': jnp.array([[6.0, 8.0]])},
      step=0,
      learning_rate=1e-3,
      config=optim.Config(eps=1.0),
  )
  np.testing.assert_allclose(nu['W_dec'], 0.0, atol=1e-12)
  np.testing.assert_allclose(got['W_dec'], [[0.6, 0.8]], atol=1e-7)


def test_a_clip_limits_the_update_of_each_latent():
  config = optim.Config(b2=0.999, update_clip=2.0)
  rng = np.random.default_rng(0)
  shapes = {'W_enc': (6, 3), 'W_dec': (3, 6), 'b_enc': (3,), 'b_dec': (6,)}
  params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
  nu = {n: np.full(s, 1e-3, np.float32) for n, s in shapes.items()}
  grads = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
  # The second latent's gradient is usual, those of the others are outliers.
  usual = np.array([1.0, 1e-2, 1.0], np.float32)
  grads['W_enc'] *= usual
  grads['W_dec'] *= usual[:, None]
  grads['b_enc'] = np.array([5.0, 0.01, -5.0], np.float32)

  def rms(x, axis):
    return np.sqrt(np.mean(x**2, axis))

  def sizes(config):
    new, _ = optim.update(
        *jax.tree.map(jnp.asarray, (params, nu, grads)), step=10**6, learning_rate=1e-3, config=config,
        unit_norm=False,
    )  # fmt: skip
    moved = {n: (np.asarray(new[n]) - params[n]) / 1e-3 for n in params}
    return [
        *rms(moved['W_enc'], 0), *rms(moved['W_dec'], 1),
        *np.abs(moved['b_enc']), rms(moved['b_dec'], 0),
    ]  # fmt: skip

  clipped, free = sizes(config), sizes(optim.Config(b2=0.999))
  wanted = np.minimum(free, 2.0)
  np.testing.assert_allclose(clipped, wanted, rtol=2e-3)
  assert sum(x > 2.5 for x in free) >= 6
  assert clipped[1] < 1.9 and clipped[4] < 1.9


def test_only_a_second_moment_is_stored():
  params = jax.tree.map(jnp.asarray, random_params(0, SHAPES))
  nu = optim.init_nu(params)
  assert jax.tree.map(jnp.shape, nu) == jax.tree.map(jnp.shape, params)
  assert not any(value.any() for value in nu.values())


def test_members_under_vmap_step_with_their_own_rates():
  rates = [1e-3, 4e-3, 2e-2]
  members = [random_params(seed, SHAPES) for seed in range(3)]
  gradients = [random_params(10 + seed, SHAPES) for seed in range(3)]

  def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

  params = stack(members)
  got, _ = jax.jit(
      jax.vmap(
          lambda p, v, g, rate: optim.update(
              p, v, g, step=0, learning_rate=rate, config=optim.Config()
          )
      )
  )(
      params,
      jax.tree.map(np.zeros_like, params),
      stack(gradients),
      jnp.array(rates),
  )
  for i, rate in enumerate(rates):
    expected, _ = numpy_steps(
        members[i], [gradients[i]], [rate], b2=0.999, eps=1e-8
    )
    for name in SHAPES:
      np.testing.assert_allclose(
          got[name][i], expected[name], rtol=0, atol=1e-6
      )


def threshold_after(name, start, gradient, *, steps, learning_rate):
  params = {'W_dec': jnp.eye(2), name: jnp.full(2, start)}
  nu = jax.tree.map(np.zeros_like, params)
  gradients = {'W_dec': jnp.zeros((2, 2)), name: jnp.full(2, gradient)}
  for step in range(steps):
    params, nu = update(
        params,
        nu,
        gradients,
        step=step,
        learning_rate=learning_rate,
        config=optim.Config(),
    )
  return params[name]


def test_a_linear_threshold_stays_above_zero():
  # One step of 1e-2 down from 1e-3 would end at -9e-3.
  got = threshold_after('threshold', 1e-3, 1.0, steps=3, learning_rate=1e-2)
  assert (got > 0).all()


def test_a_log_threshold_may_be_negative():
  got = threshold_after('log_threshold', -6.9, 1.0, steps=1, learning_rate=1e-2)
  np.testing.assert_allclose(got, -6.91, rtol=1e-6)


def test_peer_defect_6_a_log_threshold_moves_under_adam():
  # The chain rule multiplies the gradient by the threshold, 1e-3. Adam's steps
  # do not depend on that factor: 10 steps of 7e-5 are 7e-4.
  got = threshold_after(
      'log_threshold', np.log(1e-3), 2e-6, steps=10, learning_rate=7e-5
  )
  np.testing.assert_allclose(got, np.log(1e-3) - 7e-4, rtol=0, atol=1.5e-5)


def test_peer_defect_7_a_small_step_is_not_rounded_away():
  # 7e-5 is below bfloat16's spacing at 0.1, which is 5e-4.
  got = threshold_after('threshold', 0.1, 1.0, steps=1, learning_rate=7e-5)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, 0.1 - 7e-5, rtol=1e-6)


@pytest.mark.parametrize(
    'step, multiplier',
    [(0, 0.1), (250, 0.2318019), (500, 0.55), (1000, 1.0), (90_000, 1.0)],
)
def test_learning_rate_warms_up_on_a_cosine_over_1000_steps(step, multiplier):
  got = schedules.learning_rate_at(optim.Config(), step, 100_000)
  np.testing.assert_allclose(got, multiplier, rtol=1e-6)


@pytest.mark.parametrize(
    'step, multiplier', [(0, 0.0), (2500, 0.25), (10_000, 1.0), (50_000, 1.0)]
)
def test_sparsity_warms_up_on_a_line_over_10000_steps(step, multiplier):
  got = schedules.sparsity_at(optim.Config(), step, 100_000)
  np.testing.assert_allclose(got, multiplier, rtol=1e-6)


SHORT = optim.Config(
    lr_warmup_steps=None,
    lr_warmup_fraction=0.1,
    sparsity_warmup_steps=None,
    sparsity_warmup_fraction=0.4,
    lr_decay=0.25,
)


@pytest.mark.parametrize(
    'step, rate, sparsity',
    [
        (0, 0.1, 0.0),
        (5, 0.55, 0.125),
        (10, 1.0, 0.25),
        (40, 1.0, 1.0),
        (75, 1.0, 1.0),
        (80, 0.8, 1.0),
        (99, 0.04, 1.0),
    ],
)
def test_fractions_stretch_with_the_run(step, rate, sparsity):
  for stretch in (1, 3):
    total = 100 * stretch
    at = jnp.int32(step * stretch)
    got_rate = schedules.learning_rate_at(SHORT, at, total)
    got_sparsity = schedules.sparsity_at(SHORT, at, total)
    np.testing.assert_allclose(got_rate, rate, rtol=1e-5)
    np.testing.assert_allclose(got_sparsity, sparsity, rtol=1e-6)


def test_without_warm_up_both_multipliers_start_at_1():
  config = optim.Config(lr_warmup_steps=0, sparsity_warmup_steps=0)
  assert schedules.learning_rate_at(config, 0, 10) == 1
  assert schedules.sparsity_at(config, 0, 10) == 1


@pytest.mark.parametrize(
    'field, value',
    [
        ('learning_rate', 0.0),
        ('learning_rate', float('nan')),
        ('b2', 1.0),
        ('b2', -0.1),
        ('eps', 0.0),
        ('lr_warmup_steps', -1),
        ('lr_warmup_fraction', 1.5),
        ('lr_warmup_start', 0.0),
        ('lr_decay', -0.5),
        ('sparsity_warmup_steps', -7),
        ('sparsity_warmup_fraction', float('nan')),
    ],
)
def test_a_bad_field_is_named_with_its_value(field, value):
  with pytest.raises(errors.UserError, match=rf'optim\.{field} .*{value}'):
    optim.Config(**{field: value})


def test_every_field_has_help():
  for field in dataclasses.fields(optim.Config):
    assert field.metadata['help'], field.name
