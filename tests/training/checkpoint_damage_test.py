"""Damaged checkpoints and failing disks, which are never ignored."""

import logging
import os
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp
import pytest

from jumprelu import errors
from jumprelu.training import checkpoint
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


def test_a_flipped_bit_falls_back_and_sets_the_step_aside(tmp_path, caplog):
  save(tmp_path, 5, 10)
  flip_bit(largest_file(tmp_path / '10' / 'state'))
  state, meta = restore(tmp_path)
  assert bits(state) == bits(make_state(5))
  assert meta['step'] == 5
  assert names(tmp_path) == ['10.corrupt', '5']
  warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
  assert any('groups.a.' in r.getMessage() for r in warnings)


def truncate(step_dir):
  os.truncate(largest_file(step_dir / 'state'), 100)


def remove_array_files(step_dir):
  for path in (step_dir / 'state').rglob('d'):
    shutil.rmtree(path)


def change_the_stored_meta(step_dir):
  path = step_dir / '_CHECKPOINT_METADATA'
  text = path.read_text()
  assert '"block": 3' in text
  path.write_text(text.replace('"block": 3', '"block": 4'))


def remove_the_record(step_dir):
  (step_dir / '_CHECKPOINT_METADATA').unlink()


def copy_from_the_step_before(step_dir):
  shutil.rmtree(step_dir)
  shutil.copytree(step_dir.parent / '5', step_dir)


def change_one_value_but_not_the_record(step_dir):
  """Changes a value such that orbax and its compression see no error."""
  record = ocp.metadata(step_dir).custom_metadata
  leaves = ocp.load(step_dir, checkpointable_name='state')
  values = np.array(leaves['groups.a.nu'])
  values.view(np.uint16)[1, 2, 3] ^= 1
  leaves['groups.a.nu'] = jnp.asarray(values)
  shutil.rmtree(step_dir)
  ocp.save_checkpointables(step_dir, {'state': leaves}, custom_metadata=record)


FAULTS = (
    truncate,
    remove_array_files,
    change_the_stored_meta,
    remove_the_record,
    copy_from_the_step_before,
    change_one_value_but_not_the_record,
)


@pytest.mark.parametrize('fault', FAULTS, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_never_restored(tmp_path, fault):
  save(tmp_path, 5, 10)
  fault(tmp_path / '10')
  state, meta = restore(tmp_path)
  assert bits(state) == bits(make_state(5))
  assert meta['step'] == 5
  assert names(tmp_path) == ['10.corrupt', '5']


def test_the_warning_names_the_leaf_whose_bits_changed(tmp_path, caplog):
  save(tmp_path, 5, 10)
  change_one_value_but_not_the_record(tmp_path / '10')
  restore(tmp_path)
  assert 'the digest of groups.a.nu differs' in caplog.text


def test_if_no_checkpoint_verifies_nothing_is_changed(tmp_path):
  save(tmp_path, 5, 10)
  for step in '5', '10':
    flip_bit(largest_file(tmp_path / step / 'state'))
  for _ in range(2):  # A second start fails as well.
    with pytest.raises(errors.DataError, match='none .* can be restored') as e:
      restore(tmp_path)
    assert e.value.exit_code == 65
    assert names(tmp_path) == ['10', '5']


def test_a_run_with_only_a_corrupt_directory_does_not_start_again(tmp_path):
  (tmp_path / '10.corrupt').mkdir()
  with pytest.raises(errors.DataError):
    restore(tmp_path)


def test_a_run_with_only_an_empty_step_directory_does_not_start_again(tmp_path):
  (tmp_path / '0').mkdir()
  with pytest.raises(errors.DataError, match='empty or renamed directories'):
    restore(tmp_path)


def test_empty_directories_and_junk_are_not_the_latest_step(tmp_path):
  save(tmp_path, 5)
  for junk in ('9', '007', 'notes', '12.orbax-checkpoint-tmp', '99999999999'):
    (tmp_path / junk).mkdir()
  (tmp_path / '12.orbax-checkpoint-tmp' / 'x').write_text('half a save')
  (tmp_path / '99').write_text('a file')
  _, meta = restore(tmp_path)
  assert meta['step'] == 5
  assert '12.orbax-checkpoint-tmp' not in names(tmp_path)
  save_config = checkpoint.Config()
  with checkpoint.Checkpointer(tmp_path, save_config) as checkpointer:
    checkpointer.save(9, make_state(9), meta=META)  # In the empty directory.
  assert bits(restore(tmp_path)[0]) == bits(make_state(9))


def disk_full(size):
  """Limits files to `size` bytes; returns a function that lifts the limit."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported_at_the_next_save_and_at_the_end(tmp_path):
  large = {'x': jax.random.normal(jax.random.key(0), (300, 300))}
  checkpointer = checkpoint.Checkpointer(tmp_path, checkpoint.Config())
  checkpointer.save(1, large, meta=META)
  checkpointer.wait()
  for fail in (
      lambda: checkpointer.save(3, large, meta=META),
      checkpointer.close,
  ):
    undo = disk_full(50_000)
    try:
      checkpointer.save(2, large, meta=META)
      with pytest.raises(RuntimeError, match='checkpoint 2: .*File too large'):
        fail()
    finally:
      undo()
  assert checkpointer.latest_verified(large)[1]['step'] == 1
  checkpointer.save(2, large, meta=META)
  checkpointer.close()
  assert names(tmp_path) == ['1', '2']


@pytest.mark.parametrize(
    'cause',
    [
        ValueError('RESOURCE_EXHAUSTED: Failed writing: "d/1"'),
        OSError(28, 'No space left on device'),
        OSError(122, 'Disk quota exceeded'),
    ],
)
@pytest.mark.parametrize('when', ['at once', 'later'])
def test_a_full_disk_is_one_line_with_the_folder_and_code_75(
    tmp_path, monkeypatch, cause, when
):
  class Failing:

    def result(self):
      raise RuntimeError('several\nlines') from cause

  def fail(*unused_args, **unused_kwargs):
    if when == 'at once':
      raise RuntimeError('several\nlines') from cause
    return Failing()

  name = 'save_checkpointables_async'
  monkeypatch.setattr(checkpoint.ocp, name, fail)
  checkpointer = checkpoint.Checkpointer(tmp_path, checkpoint.Config())
  with pytest.raises(errors.FullDiskError) as caught:
    checkpointer.save(2, make_state(2), meta=META)
    checkpointer.close()
  message = str(caught.value)
  assert message.startswith(f'{tmp_path}: no room for checkpoint 2 (')
  assert 'same command again' in message and '\n' not in message
  assert errors.exit_code(caught.value) == 75


# Saves with a limit on the size of files, then restores although the newest
# checkpoint lost files.
_QUIET_SCRIPT = """
import pathlib, sys
import jax
from jumprelu.training import checkpoint
from tests import small_state
from tests.training import checkpoint_damage_test

folder = pathlib.Path(sys.argv[1])
large = {'x': jax.random.normal(jax.random.key(0), (300, 300))}
undo = checkpoint_damage_test.disk_full(50_000)
try:
  with checkpoint.Checkpointer(folder, checkpoint.Config()) as checkpointer:
    checkpointer.save(1, large, meta={})
except RuntimeError as error:
  print('failed:', error)
undo()
small_state.save(folder, 5, 10)
for path in (folder / '10' / 'state' / 'd').iterdir():
  path.unlink()
print('restored', small_state.restore(folder)[1]['step'])
"""


def test_a_failed_save_and_a_damaged_checkpoint_print_no_stacks(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', _QUIET_SCRIPT, tmp_path / 'checkpoints'],
      capture_output=True,
      text=True,
      check=True,
  )
  assert 'File too large' in done.stdout and 'restored 5' in done.stdout
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 2, done.stderr
  assert 'is damaged' in lines[0] and 'set aside' in lines[1]


def test_a_failed_save_does_not_hide_the_error_that_ended_the_run(tmp_path):
  large = {'x': jax.random.normal(jax.random.key(0), (300, 300))}
  undo = disk_full(50_000)
  try:
    with pytest.raises(KeyError, match='first'):
      with checkpoint.Checkpointer(
          tmp_path, checkpoint.Config()
      ) as checkpointer:
        checkpointer.save(1, large, meta=META)
        raise KeyError('first')
  finally:
    undo()


def test_steps_are_saved_again_after_a_fall_back(tmp_path):
  save(tmp_path, 5, 10)
  truncate(tmp_path / '10')
  with checkpoint.Checkpointer(tmp_path, checkpoint.Config()) as checkpointer:
    assert checkpointer.latest_verified(make_state(0))[1]['step'] == 5
    checkpointer.save(10, make_state(11), meta=META)
  state, _ = restore(tmp_path)
  assert bits(state) == bits(make_state(11))
