"""The fast steps of TopK and BatchTopK SAEs equal automatic differentiation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarking import exact as exact_lib
from experiments.benchmarking import gradients as gradients_lib
from jumprelu import saes
from jumprelu.ops import largest_k
from jumprelu.training import optim, suite, train_batch
from jumprelu.training import step as step_lib
from jumprelu.training.backends import plain
from tests import native_library, toy_suite

_D_IN, _D_OUT, _ROWS = 24, 20, 70
_DEAD_AFTER = 1000
_ORACLE = step_lib.Oracle()
_OPTIM = optim.Config(b2=0.9, lr_warmup_steps=4, sparsity_warmup_steps=None)

# Arguments of `_make` for each case.
_CASES = {
    'topk': {},
    'batch_topk': {'variant': 'batch_topk'},
    'k of 1': {'k': 1, 'width': 64},
    'a fraction of k': {'k': 3.5, 'variant': 'batch_topk', 'width': 100},
    # No row is narrowed, because it has more candidates than the limit.
    'large k': {'k': 300, 'width': 1024},
    'large k, batch_topk': {'k': 300, 'width': 1024, 'variant': 'batch_topk'},
    'k above the width': {'k': 60, 'width': 48},
    'ties': {'round': True},
    'ties, batch_topk': {'round': True, 'variant': 'batch_topk'},
    'transcoder': {'transcoder': True},
    'no pre-encoder bias': {'pre_encoder_bias': False},
    'padding only': {'padding': True},
    'padding only, batch_topk': {'padding': True, 'variant': 'batch_topk'},
    'dead latents': {'aux_k': 16},
    'dead latents, batch_topk': {
        'aux_k': 16,
        'variant': 'batch_topk',
        'transcoder': True,
    },
    # Fewer dead latents than `aux_k`.
    'few dead latents': {'aux_k': 200},
}
# The cases of `sparse`, whose programs take long to compile.
_SPARSE = ('topk', 'batch_topk', 'dead latents', 'few dead latents')
_ALL = [(case, 'native') for case in _CASES]
_ALL += [(case, 'sparse') for case in _SPARSE]


@dataclasses.dataclass
class _Case:
  """An SAE with its state, and a batch with dropped rows."""

  sae: Any
  state: suite.GroupState
  batch: train_batch.TrainBatch
  hyper: dict


@functools.cache
def _case(name):
  return _make(**_CASES[name])


def _make(
    *,
    variant='topk',
    width=256,
    k=8,
    transcoder=False,
    pre_encoder_bias=True,
    padding=False,
    aux_k=0,
    **options,
):
  rng = np.random.default_rng(0)
  config = saes.VARIANTS[variant][1](
      pre_encoder_bias=pre_encoder_bias, aux_k=aux_k, dead_after=_DEAD_AFTER
  )
  sae = saes.make_sae(
      variant,
      config,
      d_in=_D_IN,
      d_out=_D_OUT if transcoder else _D_IN,
      width=width,
      transcoder=transcoder,
  )
  params = sae.init_params(
      jax.random.key(0), initial_threshold=1.0, target_l0=float(k)
  )
  params['b_enc'] = _float32(0.1 * rng.normal(size=width))
  params['b_dec'] = _float32(0.1 * rng.normal(size=sae.d_out))
  if 'threshold' in params:
    params['threshold'] = jnp.full(width, 0.1)
  keep = (rng.random(_ROWS) < 0.9) & (not padding)
  x, y = (
      _float32(keep[:, None] * rng.normal(size=(_ROWS, d)))
      for d in (sae.d_in, sae.d_out)
  )
  if options.get('round'):
    # Products of such numbers are exact, and many are equal.
    x, params['W_enc'] = (
        jnp.round(2 * x) / 2,
        jnp.round(4 * params['W_enc']) / 4,
    )
    params |= {
        name: jnp.zeros_like(params[name]) for name in ('b_enc', 'b_dec')
    }
  batch = train_batch.TrainBatch(
      inputs=x,
      targets=y if transcoder else x,
      keep=jnp.asarray(keep),
      variance=jnp.float32(1),
      step=jnp.int32(3),
      learning_rate=jnp.float32(0.5),
      sparsity=jnp.float32(1),
  )
  silent = jnp.int32(rng.integers(0, 2, width) * 2 * _DEAD_AFTER)
  nu = jax.tree.map(lambda w: _float32(1e-3 * rng.random(w.shape)), params)
  nu |= {name: jnp.zeros_like(params[name]) for name in sae.untrained}
  state = suite.GroupState(params, nu, silent, jnp.int32(0), jnp.int32(0))
  hyper = {'learning_rate': jnp.float32(1e-2), 'target_l0': jnp.float32(k)}
  return _Case(sae, state, batch, hyper | {'sparsity_coefficient': 0.0})


def _float32(x):
  return jnp.asarray(x, jnp.float32)


def _assert_close(actual, expected, tolerance, name):
  """Checks equality up to `tolerance` of the array's largest entry."""
  atol = tolerance * np.abs(expected).max()
  np.testing.assert_allclose(
      actual, expected, rtol=0, atol=atol, err_msg=str(name)
  )


@functools.cache
def _oracle_gradients(name):
  case = _case(name)

  def loss(params, batch, silent):
    return case.sae.loss(
        params,
        batch.inputs,
        batch.targets,
        keep=batch.keep,
        sparsity_coefficient=0.0,
        target_l0=case.hyper['target_l0'],
        silent=silent,
    )

  gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))
  return gradients(case.state.params, case.batch, case.state.silent)


@functools.cache
def _exact_gradients(name):
  case = _case(name)
  params = case.state.params
  return exact_lib.gradients(
      jax.jit(functools.partial(_batch, case.sae))(
          params, case.hyper, case.batch
      ),
      params['W_enc'],
      params['W_dec'],
      settings=plain.settings_of(case.sae, _OPTIM),
  )


def _batch(sae, params, hyper, batch):
  """Returns the record of `ops`."""
  return plain.batch_of(
      sae,
      params,
      sae.pre_acts(params, batch.inputs),
      hyper,
      batch,
      search=largest_k.narrowed,
  )


def _gradients(case, path):
  """Returns the gradients of `ops`, and the result with the other values."""
  compute = {
      'sparse': functools.partial(gradients_lib.compute_sparse, cap=1024),
      'native': gradients_lib.compute_native,
  }[path]
  settings = plain.settings_of(case.sae, _OPTIM)

  @jax.jit
  def run(params, hyper, batch):
    record = _batch(case.sae, params, hyper, batch)
    return compute(record, params['W_enc'], params['W_dec'], settings=settings)

  return run(case.state.params, case.hyper, case.batch)


@pytest.mark.parametrize(
    ('name', 'path'),
    [case for case in _ALL if 'dead' not in case[0]],
)
def test_gradients_equal_those_of_automatic_differentiation(name, path):
  native_library.need(path)
  W_enc, W_dec, result = _gradients(_case(name), path)
  (loss, parts), grads = _oracle_gradients(name)
  named = {
      'W_enc': W_enc,
      'W_dec': W_dec,
      'b_enc': result.b_enc,
      'b_dec': result.b_dec,
  }
  for parameter, value in named.items():
    # The oracle's sums are in float32 too, which limits its precision.
    _assert_close(value, grads[parameter], 2e-6, parameter)
  exact = _exact_gradients(name)
  for parameter, value in named.items():
    _assert_close(value, exact[parameter], 1e-6, parameter)
  np.testing.assert_array_equal(result.fired, parts.fired)
  np.testing.assert_allclose(result.l0, parts.l0, rtol=1e-6)
  np.testing.assert_allclose(result.reconstruction, loss, rtol=1e-6)
  assert result.ok


@functools.cache
def _compiled_step(sae, backend):
  """Returns a compiled step of a backend, from a state in its layout."""

  @jax.jit
  def run(state, hyper, batch):
    state = backend.begin_segment(jax.tree.map(lambda x: x[0], state))
    state, metrics = backend.step(sae, state, hyper, batch=batch, config=_OPTIM)
    state = backend.end_segment(state, config=_OPTIM)
    return jax.tree.map(lambda x: x[None], state), metrics

  return run


def _step(case, backend):
  """Returns the state and metrics after one step of a backend."""
  # A layout is that of a group, so the arrays get a `members` axis.
  state = backend.to_layout(jax.tree.map(lambda x: x[None], case.state))
  run = _compiled_step(case.sae, backend)
  state, metrics = run(state, case.hyper, case.batch)
  return jax.tree.map(lambda x: x[0], backend.from_layout(state)), metrics


def _assert_same_step(case, backend):
  (actual, metrics), (expected, wanted) = (
      _step(case, x) for x in (backend, _ORACLE)
  )
  for name, value in expected.params.items():
    _assert_close(actual.params[name], value, 1e-5, name)
    _assert_close(actual.nu[name], expected.nu[name], 2e-6, name)
  np.testing.assert_array_equal(actual.silent, expected.silent)
  assert actual.skipped == expected.skipped
  for name, value in wanted.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)
  return actual


@pytest.mark.parametrize(('name', 'path'), _ALL)
def test_a_step_equals_the_oracles(name, path):
  native_library.need(path)
  case = _case(name)
  end = _assert_same_step(case, step_lib.BACKENDS[path])
  assert end.skipped == 0
  moved = np.asarray(end.params['W_enc'] != case.state.params['W_enc'])
  assert moved.any() == ('padding' not in name)


@pytest.mark.parametrize('path', ['sparse', 'native'])
@pytest.mark.parametrize('name', ['topk', 'batch_topk', 'dead latents'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_step_with_a_non_finite_row_is_skipped(name, path, value):
  native_library.need(path)
  case = _case(name)
  row = int(np.flatnonzero(case.batch.keep)[3])
  x = case.batch.inputs.at[row].set(value)
  batch = case.batch._replace(inputs=x, targets=x)
  end, _ = _step(
      dataclasses.replace(case, batch=batch), step_lib.BACKENDS[path]
  )
  assert end.skipped == 1
  for name, before in case.state.params.items():
    np.testing.assert_array_equal(end.params[name], before)
  np.testing.assert_array_equal(end.silent, case.state.silent)


@pytest.mark.parametrize('path', ['sparse', 'native'])
def test_a_latent_with_a_non_finite_bias_skips_the_step(path):
  native_library.need(path)
  # The encoder of a transcoder shares no parameter with other latents.
  case = _case('transcoder')
  params = case.state.params
  params = params | {'b_enc': params['b_enc'].at[5].set(np.nan)}
  state = dataclasses.replace(case.state, params=params)
  end, _ = _step(
      dataclasses.replace(case, state=state), step_lib.BACKENDS[path]
  )
  assert end.skipped == 1
  np.testing.assert_array_equal(end.params['W_dec'], params['W_dec'])


# Suites.


@functools.cache
def _groups():
  fields = {'k': (3.0, 5.0), 'aux_k': 4, 'dead_after': 60}
  fields = {
      f'sae__{variant}__{name}': value
      for variant in ('topk', 'batch_topk')
      for name, value in fields.items()
  }
  config = toy_suite.make_config(
      variants=('jumprelu', 'topk', 'batch_topk'),
      optim__learning_rate=1e-2,
      **fields,
  )
  groups = toy_suite.make_groups(config)
  return config, [group for group in groups if 'topk' in group.name]


@functools.cache
def _run(names):
  """Returns the state after 20 steps, four by each backend in turn."""
  config, groups = _groups()
  table = toy_suite.make_table(suite.taps(groups))
  stream = toy_suite.make_stream(config, table=table)
  block = stream.make_block(0, stream.estimate_scales())
  state = suite.init_state(groups)
  segments = {
      name: step_lib.make_segments(
          groups,
          _OPTIM,
          total_steps=20,
          batch=32,
          max_steps=4,
          backend=name,
      )
      for name in set(names)
  }
  for name in names:
    chosen = segments[name]
    state, _ = chosen.run(
        chosen.prepare(state), block, stream.put(0), stream.put(4)
    )
    state = chosen.finish(state)
  return jax.device_get(state)


def _assert_same_run(end, expected):
  for name, group in expected.groups.items():
    other = end.groups[name]
    for parameter, value in group.params.items():
      actual = other.params[parameter]
      _assert_close(actual, value, 1e-5, (name, parameter))
    np.testing.assert_array_equal(other.silent, group.silent, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    'names',
    [
        ('sparse',) * 5,
        ('native',) * 5,
        ('native', 'oracle', 'sparse', 'auto', 'native'),
    ],
    ids='-'.join,
)
def test_twenty_steps_of_a_suite_equal_the_oracles(names):
  for path in names:
    native_library.need(path)
  _assert_same_run(_run(names), _run(('oracle',) * 5))
