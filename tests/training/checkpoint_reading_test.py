"""Checkpoints that are read while a run writes them."""

import shutil
import time

import jax
import jax.numpy as jnp
import pytest

from jumprelu import errors
from jumprelu.training import checkpoint, checkpoint_reading
from tests.small_state import (
    META,
    bits,
    flip_bit,
    largest_file,
    make_state,
    names,
    restore,
    save,
)


def test_a_save_in_flight_survives_a_reader(tmp_path):
  shape = (64, 256, 256)
  with checkpoint.Checkpointer(tmp_path, checkpoint.Config()) as checkpointer:
    checkpointer.save(5, make_state(5, shape), meta=META)
    checkpointer.save(10, make_state(10, shape), meta=META)
    while len(names(tmp_path)) == 1:
      time.sleep(0.001)  # Orbax makes its directory in the background.
    restored = checkpoint_reading.restore(tmp_path, make_state(0, shape))
    checkpointer.wait()  # Raises if the save has lost its files.
  step = restored.meta['step']
  assert step in (5, 10)  # 10 if the save was committed before the read.
  assert bits(restored.state) == bits(make_state(step, shape))
  assert names(tmp_path) == ['10', '5']


def test_a_damaged_checkpoint_is_skipped_and_keeps_its_name(tmp_path):
  save(tmp_path, 5, 10)
  flip_bit(largest_file(tmp_path / '10' / 'state'))
  restored = checkpoint_reading.restore(tmp_path, make_state(0))
  assert (restored.meta['step'], restored.damaged) == (5, (10,))
  assert names(tmp_path) == ['10', '5']


def test_checkpoints_are_listed_again_if_a_run_replaces_them(
    tmp_path, monkeypatch
):
  save(tmp_path, 5, keep=1)
  load = checkpoint_reading.ocp.metadata

  def replace_then_load(path, **kwargs):
    if path.name == '5':
      shutil.rmtree(path)
      save(tmp_path, 10, keep=1)
    return load(path, **kwargs)

  monkeypatch.setattr(checkpoint_reading.ocp, 'metadata', replace_then_load)
  restored = checkpoint_reading.restore(tmp_path, make_state(0))
  assert restored.meta['step'] == 10


def test_a_missing_folder_holds_no_checkpoint(tmp_path):
  state = {'x': jax.device_put(jnp.ones(3))}
  assert checkpoint_reading.restore(tmp_path / 'missing', state) is None
  assert not list(tmp_path.iterdir())
  (tmp_path / '10.corrupt').mkdir()
  with pytest.raises(errors.DataError, match='nothing was changed'):
    checkpoint_reading.restore(tmp_path, state)


@pytest.mark.parametrize(
    'error',
    [
        OSError(5, 'Input/output error'),
        OSError(116, 'Stale file handle'),
        ValueError('UNAVAILABLE: Error reading "d/1": HTTP 503'),
        ValueError("UNKNOWN: Error reading: EIO [os_error_code='5']"),
    ],
)
def test_storage_that_does_not_answer_is_not_taken_for_damage(
    tmp_path, monkeypatch, error
):
  save(tmp_path, 5, 10)

  def fail(*unused_args, **unused_kwargs):
    raise RuntimeError('nested') from error

  monkeypatch.setattr(checkpoint_reading.ocp, 'load', fail)
  with pytest.raises(errors.TemporaryError) as caught:
    restore(tmp_path)
  assert errors.exit_code(caught.value) == 75
  assert f'{tmp_path}/10: cannot be read at the moment' in str(caught.value)
  assert names(tmp_path) == ['10', '5']
