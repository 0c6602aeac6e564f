"""Backends: the choice for a group, and equal results of all of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, saes
from jumprelu.ops import native
from jumprelu.training import backends, optim, suite
from jumprelu.training import step as step_lib
from jumprelu.training.backends import plain
from tests import native_library, toy_suite

_OPTIM = optim.Config(
    b2=0.9, lr_warmup_steps=4, sparsity_warmup_steps=None,
    sparsity_warmup_fraction=0.5,
)  # fmt: skip
_NAMES = ('resid_post-48-jumprelu', 'transcoder-48-jumprelu')


@functools.cache
def _job():
  config = toy_suite.make_config(
      sae__jumprelu__bandwidth=0.1,
      variants=('jumprelu', 'relu'),
      optim__learning_rate=1e-2,
  )
  groups = toy_suite.make_groups(config)
  stream = toy_suite.make_stream(
      config, table=toy_suite.make_table(suite.taps(groups))
  )
  block = stream.make_block(0, stream.estimate_scales())
  return groups, stream, block


@functools.cache
def _segments(name, clip=0.0):
  if name == 'pallas':
    # Interpreted kernels run on a CPU, slowly.
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(
          step_lib.BACKENDS, name, backends.Pallas(cap=48, interpret=True)
      )
      patch.setattr(jax, 'default_backend', lambda: 'gpu')
      return _make_segments(name, clip)
  return _make_segments(name, clip)


def _make_segments(name, clip):
  config = dataclasses.replace(_OPTIM, update_clip=clip)
  return step_lib.make_segments(
      _job()[0], config, total_steps=20, batch=32, max_steps=4, backend=name
  )


def _run(names, clip=0.0):
  """Returns state and metrics after four steps by each backend in turn."""
  groups, stream, block = _job()
  state, logs = suite.init_state(groups), []
  for name in names:
    segments = _segments(name, clip)
    state, log = segments.run(
        segments.prepare(state), block, stream.put(0), stream.put(4)
    )
    state = segments.finish(state)
    logs.append(jax.device_get(log))
  return jax.device_get(state), logs


def _close(actual, expected, tolerance):
  def check(path, x, y):
    atol = tolerance * np.abs(y).max()
    np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))

  jax.tree_util.tree_map_with_path(check, actual, expected)


@pytest.mark.parametrize(
    'names',
    [
        ('dense',) * 4,
        ('sparse',) * 4,
        ('native',) * 4,
        ('pallas',) * 4,
        # A run that is resumed with another backend.
        ('native', 'oracle', 'sparse', 'native'),
    ],
    ids='-'.join,
)
def test_a_run_is_the_same_by_any_backend_and_by_several_in_turn(
    names, monkeypatch
):
  native_library.need(*names)
  # The native step then encodes, if it can.
  monkeypatch.setattr(plain, '_LARGE', 0)
  (end, logs), (expected, oracle) = _run(names), _run(('oracle',) * 4)
  assert end.step == expected.step == 16
  for name in _NAMES:
    group, other = end.groups[name], expected.groups[name]
    _close((group.params, group.nu), (other.params, other.nu), 2e-5)
    np.testing.assert_array_equal(group.silent, other.silent)
    for log, oracle_log in zip(logs, oracle, strict=True):
      # What overflows depends on the backend.
      ours, theirs = (
          {
              key: x
              for key, x in values.groups[name].items()
              if key != 'overflow'
          }
          for values in (log, oracle_log)
      )
      _close(ours, theirs, 1e-4)
  # Other variants always get the oracle.
  name = 'resid_post-48-relu'
  jax.tree.map(
      np.testing.assert_array_equal, end.groups[name], expected.groups[name]
  )


@pytest.mark.parametrize('name', ['dense', 'sparse', 'native', 'pallas'])
def test_clipped_updates_are_the_same_by_any_backend(name):
  native_library.need(name)
  # A root mean square of an update is at most (1 - 0.9)^-0.5 = 3.2.
  (end, _), (expected, _) = _run((name,), 0.8), _run(('oracle',), 0.8)
  unclipped, _ = _run(('oracle',))
  for group in _NAMES:
    ours, theirs = end.groups[group], expected.groups[group]
    _close((ours.params, ours.nu), (theirs.params, theirs.nu), 2e-5)
    moved = theirs.params['W_enc'] - unclipped.groups[group].params['W_enc']
    assert np.abs(moved).max() > 1e-3


def test_rows_without_a_gradient_catch_up_at_the_end_of_a_segment():
  native_library.need('native')
  groups, stream, block = _job()
  ends = []
  for backend in ('oracle', 'native', 'sparse'):
    state = suite.init_state(groups)
    group = state.groups[_NAMES[0]]
    # No pre-activation reaches the thresholds of half of the latents.
    high = group.params['log_threshold'].at[:, :24].set(20.0)
    nu = {name: jnp.ones_like(x) for name, x in group.nu.items()}
    group = dataclasses.replace(
        group, params=group.params | {'log_threshold': high}, nu=nu
    )
    state = dataclasses.replace(state, groups=state.groups | {_NAMES[0]: group})
    segments = _segments(backend)
    state, _ = segments.run(
        segments.prepare(state), block, stream.put(0), stream.put(3)
    )
    ends.append(jax.device_get(segments.finish(state)).groups[_NAMES[0]].nu)
  np.testing.assert_allclose(ends[0]['W_dec'][:, :24], 0.9**3, rtol=1e-6)
  for end in ends[1:]:
    for name in ('W_enc', 'W_dec'):
      np.testing.assert_allclose(end[name], ends[0][name], rtol=1e-5)


def _chosen(name, mesh=None, **changes):
  """Returns the backend of each variant."""
  config = toy_suite.make_config(variants=tuple(saes.VARIANTS), **changes)
  return {
      group.name.split('-')[-1]: backends.choose(name, group, mesh)
      for group in toy_suite.make_groups(config)
  }


def test_only_variants_that_the_formulas_cover_get_a_fast_backend():
  native_library.need('native')
  chosen = _chosen('auto')
  fast = {name for name in chosen if chosen[name] == 'native'}
  assert fast == {'jumprelu', 'topk', 'batch_topk'}
  assert {chosen[name] for name in chosen.keys() - fast} == {'oracle'}
  assert len(chosen) == len(saes.VARIANTS)


def test_topk_gets_the_oracle_where_others_get_dense_products(monkeypatch):
  mesh = toy_suite.make_mesh(8)
  names = ('jumprelu', 'topk', 'batch_topk')

  def chosen(*args, **changes):
    by_variant = _chosen(*args, **changes)
    return [by_variant[name] for name in names]

  assert chosen('auto', mesh) == ['dense', 'oracle', 'oracle']
  assert chosen('dense') == ['dense', 'oracle', 'oracle']
  assert chosen('sparse') == ['sparse'] * 3
  with pytest.raises(errors.UserError, match='backend=sparse.*one device'):
    chosen('sparse', mesh)
  monkeypatch.setattr(native, 'why_not', lambda: 'it was not built')
  assert chosen('auto') == ['dense', 'oracle', 'oracle']
  assert chosen('auto', widths=(4096,)) == ['sparse'] * 3
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  wide = chosen('auto', widths=(65_536,))
  assert wide == ['pallas', 'oracle', 'oracle']


@pytest.mark.parametrize(
    'changes',
    [
        {'sae__jumprelu__kernel': 'gaussian'},
        {'sae__jumprelu__gradient_to_pre_acts': True},
    ],
    ids=str,
)
def test_an_sae_that_the_formulas_do_not_cover_gets_the_oracle(changes):
  config = toy_suite.make_config(**changes)
  for group in toy_suite.make_groups(config):
    for name in (backends.AUTO, *step_lib.BACKENDS):
      assert backends.choose(name, group, None) == 'oracle'


def test_an_sae_with_a_skip_term_gets_the_oracle():
  config = toy_suite.make_config(variants=('jumprelu', 'topk', 'batch_topk'))
  for group in toy_suite.make_groups(config):
    sae = dataclasses.replace(group.sae, skip=True)
    skip = dataclasses.replace(group, sae=sae)
    assert backends.choose(backends.AUTO, skip, None) == 'oracle'


def test_a_suite_on_several_devices_gets_the_dense_backend():
  group = toy_suite.make_groups(toy_suite.make_config())[0]
  mesh = toy_suite.make_mesh(8)
  assert backends.choose('auto', group, mesh) == 'dense'
  for name in ('sparse', 'native', 'pallas'):
    match = f'backend={name}.*one device.*--backend=auto'
    with pytest.raises(errors.UserError, match=match):
      backends.choose(name, group, mesh)


def test_a_gpu_gets_the_dense_backend_unless_the_sae_is_very_wide(monkeypatch):
  group = toy_suite.make_groups(toy_suite.make_config())[0]
  wide, *_ = toy_suite.make_groups(toy_suite.make_config(widths=(65_536,)))
  with pytest.raises(errors.UserError, match='pallas: it is for GPUs.* a cpu'):
    backends.choose('pallas', group, None)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert backends.choose('auto', group, None) == 'dense'
  assert backends.choose('pallas', group, None) == 'pallas'
  assert backends.choose('auto', wide, None) == 'pallas'
  assert backends.choose('dense', wide, None) == 'dense'
  with pytest.raises(errors.UserError, match='native: it is for CPUs.* a gpu'):
    backends.choose('native', group, None)


def test_steps_that_overflow_are_counted_in_the_metrics(monkeypatch):
  groups, stream, block = _job()
  _, (roomy,) = _run(('sparse',))
  monkeypatch.setitem(step_lib.BACKENDS, 'sparse', backends.Sparse(cap=4))
  segments = step_lib.make_segments(
      groups, _OPTIM, total_steps=20, batch=32, max_steps=4, backend='sparse'
  )
  start = segments.prepare(suite.init_state(groups))
  _, tight = segments.run(start, block, stream.put(0), stream.put(4))
  # At most all 32 rows of a batch have more than 4 selected latents.
  overflow = np.asarray(tight.groups[_NAMES[0]]['overflow'])
  assert (overflow > 0).all() and (overflow <= 32).all()
  assert (roomy.groups[_NAMES[0]]['overflow'] == 0).all()
  _close(tight.groups[_NAMES[0]]['loss'], roomy.groups[_NAMES[0]]['loss'], 1e-4)
