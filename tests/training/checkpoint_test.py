"""Checkpoints in one process, on eight simulated devices and on one."""

import dataclasses
import logging

from absl import logging as absl_logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, sharding
from jumprelu.training import checkpoint
from tests.small_state import (
    META,
    State,
    bits,
    make_state,
    names,
    restore,
    save,
)


def test_restores_the_newest_state_and_its_meta_bit_for_bit(tmp_path):
  save(tmp_path, 5, 10)
  state, meta = restore(tmp_path)
  assert isinstance(state, State)
  assert bits(state) == bits(make_state(10))
  assert meta == {**META, 'step': 10}


def test_a_new_directory_holds_nothing(tmp_path):
  assert restore(tmp_path / 'new') is None


def test_keeps_the_newest_checkpoints_only(tmp_path):
  save(tmp_path, 1, 2, 9, 10, keep=2)
  assert names(tmp_path) == ['10', '9']


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda a: {**a, 'W_enc': a['W_enc'].astype(jnp.bfloat16)}, 'float32'),
        (lambda a: {**a, 'nu': a['nu'][:2]}, r'bfloat16\[4, 16, 8\]'),
        (lambda a: {**a, 'extra': a['nu']}, 'only the run has .*extra'),
        (lambda a: {'W_enc': a['W_enc']}, 'only the record has'),
    ],
)
def test_another_configuration_is_an_error_not_a_cast(
    tmp_path, change, message
):
  save(tmp_path, 5)
  wanted = make_state(0)
  wanted = dataclasses.replace(wanted, groups={'a': change(wanted.groups['a'])})
  with pytest.raises(errors.UserError, match=message) as e:
    restore(tmp_path, wanted)
  assert e.value.exit_code == 2
  assert names(tmp_path) == ['5']


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
  bad = make_state(10)
  bad.groups['a']['nu'] = bad.groups['a']['nu'].at[1, 2, 3].set(jnp.nan)
  config = checkpoint.Config(keep=1)
  with checkpoint.Checkpointer(tmp_path, config) as checkpointer:
    checkpointer.save(5, make_state(5), meta=META)
    with pytest.raises(errors.NumericalError, match=r'groups\.a\.nu'):
      checkpointer.save(10, bad, meta=META)
  assert names(tmp_path) == ['5']


def test_arrays_may_be_donated_while_they_are_being_written(tmp_path):
  double = jax.jit(lambda x: x * 2, donate_argnums=0)
  x = jax.random.normal(jax.random.key(0), (1500, 1000))
  want = np.array(x).tobytes()
  with checkpoint.Checkpointer(tmp_path, checkpoint.Config()) as checkpointer:
    checkpointer.save(1, {'x': x}, meta=META)
    for _ in range(5):
      x = double(x)
    jax.block_until_ready(x)
  assert bits(restore(tmp_path, {'x': x})[0]) == [want]


def test_a_checkpoint_older_than_the_newest_is_refused(tmp_path):
  """Peers wrote stale steps after a resume."""
  save(tmp_path, 5, 10)
  with pytest.raises(errors.DataError, match='already holds checkpoint 10'):
    save(tmp_path, 7)
  assert names(tmp_path) == ['10', '5']


def test_the_same_step_twice_is_saved_once(tmp_path):
  with checkpoint.Checkpointer(tmp_path, checkpoint.Config()) as checkpointer:
    checkpointer.save(5, make_state(5), meta=META)
    checkpointer.save(5, make_state(5), meta={**META, 'block': 4})
  assert restore(tmp_path)[1]['block'] == 3


def test_restores_on_other_devices_than_it_was_saved_from(tmp_path):
  """The bits are the same on eight devices, on four, and on one."""
  want = make_state(5)

  def laid_out(data, tensor):
    devices = jax.devices()[: data * tensor]
    mesh = sharding.make_mesh(sharding.Config(data, tensor), devices)
    axes = ('sequences', 'heads')
    return jax.tree.map(lambda x: sharding.named(mesh, *axes[: x.ndim]), want)

  shardings = [laid_out(4, 2), laid_out(2, 2), laid_out(1, 1)]
  with checkpoint.Checkpointer(tmp_path, checkpoint.Config()) as checkpointer:
    checkpointer.save(5, jax.device_put(want, shardings[0]), meta=META)
  for target in shardings:
    state, _ = restore(tmp_path, jax.device_put(want, target))
    assert bits(state) == bits(want)
    assert jax.tree.map(lambda x: x.sharding, state) == target


def test_only_our_own_lines_are_logged(tmp_path):
  lines = []
  handler = logging.Handler()
  handler.emit = lambda record: lines.append(record.getMessage())
  logger = logging.getLogger('absl')
  before = absl_logging.get_verbosity()
  absl_logging.set_verbosity(absl_logging.INFO)
  logger.addHandler(handler)
  try:
    save(tmp_path, 5)
  finally:
    logger.removeHandler(handler)
    absl_logging.set_verbosity(before)
  assert lines == ['checkpoint 5: saving', 'checkpoint 5: committed']


@pytest.mark.parametrize('field', ['every_blocks', 'keep'])
def test_intervals_must_be_positive(field):
  with pytest.raises(
      errors.UserError, match=f'checkpoint.{field} must be .*got 0'
  ):
    checkpoint.Config(**{field: 0})
