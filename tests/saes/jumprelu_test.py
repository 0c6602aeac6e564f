"""The JumpReLU SAE's loss and gradients against NumPy, term by term."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, saes
from jumprelu.saes import jumprelu

D, WIDTH, ROWS = 4, 6, 30
BANDWIDTH = 0.3


def make(*, transcoder=False, d_out=D, **fields):
  config = jumprelu.Config(**({'bandwidth': BANDWIDTH} | fields))
  return saes.make_sae(
      'jumprelu',
      config,
      d_in=D,
      d_out=d_out,
      width=WIDTH,
      transcoder=transcoder,
  )


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(sae, params, batch, coefficient, target_l0):
  inputs, targets, keep = batch
  return jax.value_and_grad(
      lambda p: sae.loss(
          p,
          inputs,
          targets,
          keep=keep,
          sparsity_coefficient=coefficient,
          target_l0=target_l0,
      ),
      has_aux=True,
  )(params)


def random_params(key_name, *, d_out=D):
  rng = np.random.default_rng(3)
  threshold = rng.uniform(0.1, 0.4, WIDTH)
  params = {
      'W_enc': rng.normal(size=(D, WIDTH)),
      'b_enc': 0.1 * rng.normal(size=WIDTH),
      'W_dec': rng.normal(size=(WIDTH, d_out)),
      'b_dec': 0.3 * rng.normal(size=d_out),
      key_name: np.log(threshold) if key_name == 'log_threshold' else threshold,
  }
  return {name: value.astype(np.float32) for name, value in params.items()}


def random_rows(d_out=D):
  rng = np.random.default_rng(4)
  inputs = rng.normal(size=(ROWS, D)).astype(np.float32)
  targets = rng.normal(size=(ROWS, d_out)).astype(np.float32)
  return inputs, targets, rng.uniform(size=ROWS) < 0.7


def rectangle(u):
  return (np.abs(u) < 0.5) * 1.0


def triangle(u):
  return np.maximum(1 - np.abs(u), 0)


def numpy_gradients(
    params, inputs, targets, keep, *, subtract, weigh, kernel, to_pre_acts
):
  """Returns loss and gradients by the papers' formulas, row by row.

  `weigh` returns the penalty term and its derivative by the mean L0.
  """
  p = {name: value.astype(np.float64) for name, value in params.items()}
  log = 'log_threshold' in p
  threshold = np.exp(p['log_threshold']) if log else p['threshold']
  kept = np.flatnonzero(keep)
  grads = {name: np.zeros_like(value) for name, value in p.items()}
  to_threshold = np.zeros(WIDTH)
  squared = 0.0
  xs = inputs[kept] - subtract * p['b_dec'][:D]
  zs = xs @ p['W_enc'] + p['b_enc']
  l0 = (zs > threshold).sum() / len(kept)
  term, slope = weigh(l0)
  for b, x, z in zip(kept, xs, zs, strict=True):
    active = z > threshold
    f = z * active
    error = f @ p['W_dec'] + p['b_dec'] - targets[b]
    squared += error @ error
    g = 2 * error / len(kept)
    to_f = p['W_dec'] @ g
    near = kernel((z - threshold) / BANDWIDTH) / BANDWIDTH
    through = near * (threshold * to_f + slope / len(kept))
    to_z = to_f * active + to_pre_acts * through
    grads['W_dec'] += np.outer(f, g)
    grads['b_dec'] += g
    grads['W_enc'] += np.outer(x, to_z)
    grads['b_enc'] += to_z
    if subtract:
      grads['b_dec'] -= p['W_enc'] @ to_z
    to_threshold -= through
  if log:
    grads['log_threshold'] = to_threshold * threshold
  else:
    grads['threshold'] = to_threshold
  return squared / len(kept) + term, l0, grads


@pytest.mark.parametrize(
    'fields, transcoder',
    [
        ({}, False),
        ({'pre_encoder_bias': False}, False),
        ({'threshold_parameter': 'linear'}, False),
        ({'penalty': 'target_l0'}, False),
        ({'kernel': 'triangle'}, False),
        ({'gradient_to_pre_acts': True}, False),
        ({}, True),
    ],
    ids=lambda x: ','.join(map(str, x.items())) if isinstance(x, dict) else x,
)
def test_loss_and_gradients_are_the_papers(fields, transcoder):
  d_out = D + 1 if transcoder else D
  sae = make(transcoder=transcoder, d_out=d_out, **fields)
  linear = fields.get('threshold_parameter') == 'linear'
  params = random_params(
      'threshold' if linear else 'log_threshold', d_out=d_out
  )
  inputs, targets, keep = random_rows(d_out)

  def weigh(l0):
    if 'penalty' in fields:
      return 0.7 * (l0 / 1.5 - 1) ** 2, 2 * 0.7 * (l0 / 1.5 - 1) / 1.5
    return 0.7 * l0, 0.7

  loss, l0, expected = numpy_gradients(
      params,
      inputs,
      targets,
      keep,
      subtract=not transcoder and fields.get('pre_encoder_bias', True),
      weigh=weigh,
      kernel=triangle if 'kernel' in fields else rectangle,
      to_pre_acts='gradient_to_pre_acts' in fields,
  )
  (got_loss, parts), got = value_and_gradients(
      sae, params, (inputs, targets, keep), 0.7, 1.5
  )
  np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
  np.testing.assert_allclose(parts.l0, l0, rtol=1e-6)
  np.testing.assert_allclose(
      parts.reconstruction + parts.penalty, loss, rtol=1e-5
  )
  assert set(got) == set(expected)
  for name, gradient in expected.items():
    tolerance = 1e-5 * np.abs(gradient).max()
    np.testing.assert_allclose(
        got[name], gradient, rtol=0, atol=tolerance, err_msg=name
    )


def test_peer_defect_2_the_penalty_sees_latents_just_below_the_threshold():
  # All latents are inactive, 0.05 below the threshold, so the penalty's
  # gradient raises the threshold.
  sae = make(threshold_parameter='linear', pre_encoder_bias=False)
  params = {
      'W_enc': jnp.zeros((D, WIDTH)),
      'b_enc': jnp.full(WIDTH, 0.45),
      'W_dec': jnp.ones((WIDTH, D)),
      'b_dec': jnp.zeros(D),
      'threshold': jnp.full(WIDTH, 0.5),
  }
  zeros = np.zeros((ROWS, D), np.float32)
  (_, parts), grads = value_and_gradients(
      sae, params, (zeros, zeros, np.ones(ROWS, bool)), 0.6, 0.0
  )
  assert parts.l0 == 0
  np.testing.assert_allclose(
      grads['threshold'], np.full(WIDTH, -0.6 / BANDWIDTH), rtol=1e-5
  )
  # The encoder gets no gradient from the penalty.
  assert not grads['W_enc'].any()
  assert not grads['b_enc'].any()


def test_peer_defect_7_thresholds_are_float32_whatever_the_inputs():
  for kind in jumprelu.THRESHOLD_PARAMETERS:
    sae = make(threshold_parameter=kind)
    params = jax.jit(sae.init_params)(
        jax.random.key(0), initial_threshold=0.1001
    )
    inputs = np.ones((3, D), jnp.bfloat16)
    _, grads = value_and_gradients(
        sae, params, (inputs, inputs, np.ones(3, bool)), 0.1, 0.0
    )
    for name, value in params.items():
      assert value.dtype == grads[name].dtype == jnp.float32
    # bfloat16 cannot represent 0.1001.
    np.testing.assert_allclose(sae.threshold(params), 0.1001, rtol=1e-6)


def test_both_threshold_parameters_describe_the_same_sae():
  log = random_params('log_threshold')
  linear = {k: v for k, v in log.items() if k != 'log_threshold'}
  linear['threshold'] = np.exp(log['log_threshold'])
  inputs = jnp.asarray(random_rows()[0])
  np.testing.assert_allclose(
      make().encode(jax.tree.map(jnp.asarray, log), inputs),
      make(threshold_parameter='linear').encode(
          jax.tree.map(jnp.asarray, linear), inputs
      ),
      rtol=1e-6,
  )


def test_folded_parameters_are_those_of_the_formulas():
  params = random_params('log_threshold', d_out=D)
  params['W_dec'] /= np.linalg.norm(params['W_dec'], axis=-1, keepdims=True)
  threshold = np.exp(params['log_threshold'])
  arrays = jax.tree.map(jnp.asarray, params)
  _, raw = make().fold(arrays, input_scale=20.0, target_scale=20.0)
  expected = {
      'W_enc': params['W_enc'],
      'b_enc': 20 * params['b_enc'] - 20 * params['b_dec'] @ params['W_enc'],
      'W_dec': params['W_dec'],
      'b_dec': 20 * params['b_dec'],
      'threshold': 20 * threshold,
  }
  assert set(raw) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(raw[name], value, rtol=1e-5, atol=1e-5)

  _, raw = make(transcoder=True).fold(
      arrays, input_scale=20.0, target_scale=3.0
  )
  expected = {
      'W_enc': 0.15 * params['W_enc'],
      'b_enc': 3 * params['b_enc'],
      'W_dec': params['W_dec'],
      'b_dec': 3 * params['b_dec'],
      'threshold': 3 * threshold,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(raw[name], value, rtol=1e-5, atol=1e-6)


def test_the_description_is_hashable_and_the_config_static():
  assert hash(make()) == hash(make())
  assert make() == make()
  assert make() != make(bandwidth=0.2)


@pytest.mark.parametrize(
    'field, value',
    [
        ('bandwidth', 0.0),
        ('bandwidth', float('nan')),
        ('initial_threshold', -0.1),
        ('threshold_parameter', 'softplus'),
        ('penalty', 'l1'),
        ('kernel', 'box'),
    ],
)
def test_a_bad_field_is_named_with_its_value(field, value):
  with pytest.raises(errors.UserError, match=rf'jumprelu\.{field} .*{value}'):
    jumprelu.Config(**{field: value})


def test_every_field_has_help():
  for field in dataclasses.fields(jumprelu.Config):
    assert field.metadata['help'], field.name
