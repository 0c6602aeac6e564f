"""Steps of a suite: independent members, any devices, non-finite values."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import lm
from jumprelu.activations import blocks
from jumprelu.activations import scales as scales_lib
from jumprelu.training import backends, optim, padding, suite, train_batch
from jumprelu.training import step as step_lib
from tests import toy_suite

_OPTIM = optim.Config(
    lr_warmup_steps=4, sparsity_warmup_steps=None, sparsity_warmup_fraction=0.5
)
_TOTAL, _BATCH = 20, 32
_NAME = 'resid_post-48-jumprelu'


def _member(number, site='resid_post'):
  """Returns a member that differs from the others in every hyper-parameter."""
  return suite.Member(
      site=site,
      layer=toy_suite.LAYER,
      width=48,
      variant='jumprelu',
      sparsity_coefficient=0.01 * (1 + number),
      target_l0=0.0,
      seed=number,
      learning_rate=1e-2 / (1 + number),
      initial_threshold=0.05 + 0.01 * number,
  )


# Five members at one site, the last with a learning rate of 0, and two
# transcoders.
_MIXED = (
    *(_member(number) for number in range(4)),
    dataclasses.replace(_member(4), learning_rate=0.0),
    *(_member(number, 'transcoder') for number in range(2)),
)


@dataclasses.dataclass
class _Setup:
  """A compiled suite on one block."""

  groups: tuple
  mesh: object
  stream: object
  block: blocks.Block
  segments: step_lib.Segments

  def init(self):
    return suite.init_state(self.groups, mesh=self.mesh)

  def run(self, steps, state=None):
    """Returns the states after each number of `steps`, and all metrics.

    The batches are 0 to 3, repeated.
    """
    put, segments = self.stream.put, self.segments
    state = segments.prepare(self.init() if state is None else state)
    done, states, logs = 0, [], []
    for end in steps:
      while done < end:
        first = done % 4
        taken = min(4 - first, end - done)
        with jax.transfer_guard('disallow'):
          args = state, self.block, put(first), put(taken)
          state, log = segments.run(*args)
        logs.append(jax.tree.map(lambda x, n=taken: x[:n], jax.device_get(log)))
        done += taken
      stripped = padding.strip(
          segments.finish(state), self.groups, mesh=self.mesh
      )
      states.append(jax.device_get(stripped))
    return *states, jax.tree.map(lambda *x: np.concatenate(x), *logs)


@functools.cache
def _setup(members=_MIXED, devices=(), **changes):
  config = toy_suite.make_config(
      sae__jumprelu__bandwidth=0.1, sites=('resid_post',), **changes
  )
  groups = suite.make_groups(
      members,
      configs=config.variant_configs(),
      d_site=toy_suite.WIDTHS.__getitem__,
  )
  mesh = toy_suite.make_mesh(*devices) if devices else None
  taps = suite.taps(groups)
  stream = toy_suite.make_stream(
      config, table=toy_suite.make_table(taps), mesh=mesh
  )
  segments = step_lib.make_segments(
      groups, _OPTIM, total_steps=_TOTAL, batch=_BATCH, max_steps=4, mesh=mesh
  )
  block = stream.make_block(0, scales_lib.Scales(dict.fromkeys(taps, 5.0)))
  return _Setup(groups, mesh, stream, block, segments)


@pytest.fixture(scope='module')
def mixed():
  """The mixed suite after 1, 4 and 20 steps on one device, and its metrics."""
  return _setup().run((1, 4, 20))


def _close(actual, expected, tolerance):
  """Asserts equality up to `tolerance` times each array's largest entry."""

  def check(path, x, y):
    atol = tolerance * np.abs(y).max()
    np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))

  jax.tree_util.tree_map_with_path(check, actual, expected)


def _gradients(first):
  """Returns |gradient| by parameter, from the second moments after one step."""
  return {n: jax.tree.map(np.sqrt, g.nu) for n, g in first.groups.items()}


def _parameters(state):
  return {name: group.params for name, group in state.groups.items()}


@pytest.mark.parametrize('number', [0, 2])
def test_a_step_applies_the_optimiser_to_the_gradient_of_the_loss(
    number, mixed
):
  setup, member, (_, four, _, log) = _setup(), _MIXED[number], mixed
  sae = setup.groups[0].sae
  start = setup.init().groups[_NAME].params
  params = {name: x[number] for name, x in start.items()}
  nu = optim.init_nu(params)
  metrics = log.groups[_NAME]
  differentiate = jax.jit(jax.value_and_grad(sae.loss, has_aux=True))
  put = setup.stream.put
  for step in range(4):
    inputs, keep = toy_suite.read_batch(setup.block, put(step), size=_BATCH)
    x = inputs[lm.Tap(toy_suite.LAYER, lm.Site.RESID_POST)]
    (_, parts), grads = differentiate(
        params,
        x,
        x,
        keep=keep,
        # The warm-up is linear from 0 to 1 over half of the run.
        sparsity_coefficient=member.sparsity_coefficient * step / 10,
        target_l0=1.0,
    )
    # The warm-up follows a cosine from 0.1 to 1 over four steps.
    warm = 0.1 + 0.9 * (1 - np.cos(np.pi * step / 4)) / 2
    params, nu = optim.update(
        params,
        nu,
        grads,
        step=step,
        learning_rate=member.learning_rate * warm,
        config=_OPTIM,
    )
    kept = np.asarray(x, np.float64)[np.asarray(keep)]
    fvu = parts.reconstruction / kept.var(axis=0).sum()
    logged = {name: values[step, number] for name, values in metrics.items()}
    np.testing.assert_allclose(logged['loss'], parts.loss, rtol=1e-5)
    np.testing.assert_allclose(logged['l0'], parts.l0, rtol=1e-6)
    np.testing.assert_allclose(logged['fvu'], fvu, rtol=1e-5)
    assert log.kept[step] == len(kept)
  trained = {name: x[number] for name, x in four.groups[_NAME].params.items()}
  _close(trained, params, 1e-5)


@pytest.mark.parametrize('number', [3, 6])
def test_a_member_of_a_suite_equals_its_solo_run(number, mixed):
  first, _, last, _ = mixed
  member = _MIXED[number]
  name = f'{member.site}-48-jumprelu'
  place = number if number < 5 else number - 5

  def pick(tree):
    return jax.tree.map(lambda x: x[place : place + 1], tree[name])

  solo_first, solo_last, _ = _setup((member,)).run((1, 20))
  _close(pick(_gradients(first)), _gradients(solo_first)[name], 1e-6)
  _close(pick(_parameters(last)), _parameters(solo_last)[name], 1e-5)
  np.testing.assert_array_equal(
      pick(last.groups).silent, solo_last.groups[name].silent
  )


@pytest.mark.parametrize(
    'devices, few', [((8, 1), 'latents'), ((2, 4), 'members_latents')]
)
def test_eight_devices_equal_one(devices, few, mixed):
  setup, (first_alone, _, last_alone, log) = _setup(devices=devices), mixed
  layouts = [suite.layout_of(g, setup.mesh).name for g in setup.groups]
  assert layouts == ['members', few]
  first, last, spread = setup.run((1, 20))
  _close(_gradients(first), _gradients(first_alone), 1e-6)
  _close(_parameters(last), _parameters(last_alone), 1e-5)
  np.testing.assert_array_equal(spread.kept, log.kept)
  # Neither metrics nor states have padding.
  shapes = functools.partial(jax.tree.map, np.shape)
  assert shapes(spread) == shapes(log) and shapes(last) == shapes(last_alone)


def _with(state, **changes):
  """Returns the state with changed arrays in the residual stream's group."""
  group = dataclasses.replace(state.groups[_NAME], **changes)
  return dataclasses.replace(state, groups=state.groups | {_NAME: group})


@pytest.mark.parametrize('devices', [(), (8, 1)])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_non_finite_member_is_not_updated_and_does_not_affect_others(
    devices, value
):
  setup = _setup(devices=devices)
  start = setup.init()
  params = start.groups[_NAME].params
  damaged = params['W_enc'].at[1, 0, 0].set(value)
  start = _with(start, params=params | {'W_enc': damaged})
  before = jax.device_get(start).groups[_NAME]
  after, log = setup.run((4,), start)
  healthy, _ = setup.run((4,))
  after, healthy = after.groups[_NAME], healthy.groups[_NAME]

  def same(x, y, members):
    np.testing.assert_array_equal(x[members], y[members])

  def trained_arrays(group):
    return group.params, group.nu, group.silent

  frozen = functools.partial(same, members=[1])
  jax.tree.map(frozen, trained_arrays(after), trained_arrays(before))
  unharmed = functools.partial(same, members=[0, 2, 3, 4])
  jax.tree.map(unharmed, after, healthy)
  np.testing.assert_array_equal(after.skipped, [0, 4, 0, 0, 0])
  np.testing.assert_array_equal(
      log.groups[_NAME]['skipped'][:, 1], [1, 2, 3, 4]
  )


def test_learning_rates_belong_to_members(mixed):
  start = jax.device_get(_setup().init()).groups[_NAME].params
  last = mixed[2].groups[_NAME].params
  moved = np.abs(last['W_enc'] - start['W_enc']).max(axis=(1, 2))
  # Rates of 1e-2, 5e-3, 3.3e-3, 2.5e-3 and 0.
  assert moved[4] == 0.0
  assert (np.diff(moved) < 0).all(), moved


def test_silence_is_counted_in_kept_rows_since_a_latent_last_fired():
  setup = _setup()
  start = setup.init()
  params = start.groups[_NAME].params
  # Nothing reaches the thresholds of member 0; those of member 4 are almost 0.
  thresholds = params['log_threshold'].at[0].set(20.0).at[4].set(-20.0)
  near = backends.DEAD_AFTER - 1
  silent = jnp.zeros((5, 48), jnp.int32).at[:, :6].set(near).at[0, 6].set(2**30)
  start = _with(
      start, params=params | {'log_threshold': thresholds}, silent=silent
  )
  state, log = setup.run((1,), start)
  silent, (kept,) = state.groups[_NAME].silent, log.kept
  np.testing.assert_array_equal(silent[0, :6], near + kept)
  # The counter saturates far below the maximum of int32.
  assert silent[0, 6] == 2**30
  np.testing.assert_array_equal(silent[0, 7:], kept)
  assert (silent[4] == 0).mean() > 0.9
  shares = log.groups[_NAME]['dead_share'][0]
  np.testing.assert_allclose(shares[0], 7 / 48)
  np.testing.assert_allclose(shares[4], (silent[4, :6] > 0).mean() * 6 / 48)


def test_the_l0_of_each_member_moves_to_its_target():
  first = dataclasses.replace(
      _member(0), sparsity_coefficient=10.0, learning_rate=2e-2
  )
  members = tuple(
      dataclasses.replace(first, target_l0=target) for target in (2.0, 8.0)
  )
  setup = _setup(members, target_l0=(2.0, 8.0), sparsity_coefficients=())
  _, log = setup.run((240,))
  l0 = log.groups[_NAME]['l0'][-4:].mean(axis=0)
  np.testing.assert_allclose(l0, [2.0, 8.0], rtol=0.15)


def test_pooled_variance_ignores_dropped_rows():
  targets = jnp.asarray([[1.0, 0.0], [3.0, 4.0], [99.0, 99.0]])
  keep = jnp.asarray([True, True, False])
  # The mean is (2, 2), and the squared distances are 1 + 4 and 1 + 4.
  np.testing.assert_allclose(train_batch.pooled_variance(targets, keep), 5.0)


def test_a_segment_never_waits_for_the_host_and_donates_its_state():
  setup = _setup()
  state, put = setup.segments.prepare(setup.init()), setup.stream.put
  args = state, setup.block, put(0), put(4)
  text = setup.segments.run.lower(*args).as_text()
  assert 'stablehlo.while' in text
  assert not re.findall('callback|infeed|outfeed|stablehlo.(send|recv)', text)
  setup.segments.run(*args)
  assert state.groups[_NAME].params['W_dec'].is_deleted()


def test_members_that_are_stepped_one_after_another_need_no_second_state():
  members = tuple(
      dataclasses.replace(_member(number), width=16_384) for number in range(5)
  )
  setup = _setup(members)
  state, put = setup.segments.prepare(setup.init()), setup.stream.put
  lowered = setup.segments.run.lower(state, setup.block, put(0), put(4))
  memory = lowered.compile().memory_analysis()
  # With `lax.map` the temporaries are larger than the state.
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  assert memory.alias_size_in_bytes >= size
  assert memory.temp_size_in_bytes < 0.7 * size
