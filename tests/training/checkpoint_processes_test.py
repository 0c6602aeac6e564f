"""A checkpoint of several processes, restored by them or by one process."""

import pytest

from tests import local_processes

SCRIPT = """
import sys
import jax
import numpy as np
from jumprelu import sharding
from jumprelu.training import checkpoint
from jumprelu.run import preemption

tasks, directory, *flags = sys.argv[1:]
fields = dict(flag.removeprefix('--process.').split('=') for flag in flags)
for name in 'num_processes', 'process_id', 'heartbeat_timeout':
  if name in fields:
    fields[name] = int(fields[name])


def state(step):
  rng = np.random.default_rng(step)
  # Large enough for each process to write a file of its own.
  numpy_state = {
      'W': rng.normal(size=(8, 64, 96)).astype(np.float32),
      'nu': rng.random(size=(8, 64, 96)).astype(np.float32),
      'bias': rng.normal(size=(8, 4)).astype(np.float32),
      'step': np.int32(step),
  }
  axes = ('sequences', 'heads')
  return numpy_state, {
      name: jax.make_array_from_callback(
          x.shape, sharding.named(mesh, *axes[: x.ndim]), lambda i, x=x: x[i]
      )
      for name, x in numpy_state.items()
  }


def same(arrays, want):
  # Each process compares the shards on its devices.
  return all(
      np.array_equal(shard.data, want[name][shard.index])
      for name, x in arrays.items()
      for shard in x.addressable_shards
  )


with preemption.start(preemption.Config(**fields)):
  mesh = sharding.make_mesh(sharding.Config(tensor=2))
  config = checkpoint.Config(keep=2)
  with checkpoint.Checkpointer(directory, config) as checkpointer:
    for task in tasks.split(','):
      verb, _, step = task.partition(' ')
      if verb == 'save':
        checkpointer.save(int(step), state(int(step))[1], meta={'block': 7})
      else:
        _, abstract = state(0)
        arrays, meta = checkpointer.latest_verified(abstract)
        want, _ = state(meta['step'])
        print('restored', meta, same(arrays, want), flush=True)
"""


@pytest.fixture
def script(tmp_path):
  path = tmp_path / 'script.py'
  path.write_text(SCRIPT)
  return path


def run_two(script, tasks, directory):
  argv = [script, tasks, directory]
  with local_processes.run_together(argv, devices=2) as children:
    codes = [child.exit_code() for child in children]
    assert codes == [0, 0], children[0].output + children[1].output
  return [child.output for child in children]


def test_peer_defect_18_the_shards_of_every_process_are_saved(script, tmp_path):
  """A peer stored process 0's optimiser state for everyone."""
  directory = tmp_path / 'checkpoints'
  outputs = run_two(script, 'save 3,save 4,save 5,restore', directory)
  restored = "restored {'block': 7, 'step': 5} True"
  for output in outputs:
    assert restored in output
  assert sorted(path.name for path in directory.iterdir()) == ['4', '5']
  with local_processes.run([script, 'restore', directory], devices=4) as child:
    assert child.exit_code() == 0, child.output
  assert restored in child.output


@pytest.mark.slow
def test_damage_to_the_shards_of_one_process_makes_all_fall_back(
    script, tmp_path
):
  directory = tmp_path / 'checkpoints'
  run_two(script, 'save 3,save 4', directory)
  part = directory / '4' / 'state' / 'ocdbt.process_1'
  largest = max(part.rglob('d/*'), key=lambda path: path.stat().st_size)
  data = bytearray(largest.read_bytes())
  for at in range(len(data) // 4, len(data), 1000):
    data[at] ^= 4
  largest.write_bytes(data)
  for output in run_two(script, 'restore,save 4,restore', directory):
    assert "restored {'block': 7, 'step': 3} True" in output
    assert "restored {'block': 7, 'step': 4} True" in output
  names = sorted(path.name for path in directory.iterdir())
  assert names == ['3', '4', '4.corrupt']
