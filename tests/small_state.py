"""A small training state and its checkpoints, for tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.training import checkpoint

META = {'block': 3, 'tokens_kept': 2**70, 'scales': {'mlp_out': 0.1}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  groups: dict
  step: jax.Array


def make_state(seed, shape=(4, 16, 8)):
  rng = np.random.default_rng(seed)
  return State(
      groups={
          'a': {
              'W_enc': jnp.array(rng.normal(size=shape), jnp.float32),
              'nu': jnp.array(rng.random(shape), jnp.bfloat16),
              'silent': jnp.array(rng.integers(0, 99, shape[:2]), jnp.int32),
          }
      },
      step=jnp.int32(seed),
  )


def bits(state):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


def save(directory, *steps, keep=3):
  config = checkpoint.Config(keep=keep)
  with checkpoint.Checkpointer(directory, config) as checkpointer:
    for step in steps:
      checkpointer.save(step, make_state(step), meta=META)


def restore(directory, abstract_state=None):
  checkpointer = checkpoint.Checkpointer(directory, checkpoint.Config())
  return checkpointer.latest_verified(abstract_state or make_state(0))


def names(directory):
  return sorted(path.name for path in directory.iterdir())


def largest_file(directory):
  files = [path for path in directory.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)
