"""Communication between the processes of a job.

Every function except `is_main` is a collective: all processes must call it, in
the same order, or they wait for ever. With one process a call costs nothing.
"""

from collections.abc import Mapping, Sequence
import hashlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from jumprelu import errors

# The fixed length of the arrays that are exchanged.
_SLOTS = 64


def is_main() -> bool:
  """Returns whether this process is the one that writes files and logs."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has called it."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'jumprelu: {name}')


def from_main(numbers: Sequence[int]) -> list[int]:
  """Returns process 0's numbers in every process.

  There are at most 64 numbers, each from 0 to 2^31 - 1.
  """
  if jax.process_count() == 1:
    return list(numbers)
  padded = np.full(_SLOTS, -1, np.int32)
  padded[: len(numbers)] = numbers
  padded = multihost_utils.broadcast_one_to_all(padded)
  return [int(number) for number in padded if number >= 0]


def array_from_main(array: np.ndarray) -> np.ndarray:
  """Returns process 0's array in every process.

  Args:
    array: An array of the same shape and dtype in all processes.
  """
  if jax.process_count() == 1:
    return array
  # Bytes, because JAX has no 64-bit types by default.
  raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  raw = np.asarray(multihost_utils.broadcast_one_to_all(raw))
  return raw.view(array.dtype).reshape(array.shape)


def from_all(number: int) -> list[int]:
  """Returns each process's number, in the order of the processes."""
  if jax.process_count() == 1:
    return [number]
  numbers = multihost_utils.process_allgather(np.array(number, np.int32))
  return [int(number) for number in numbers]


def agree(facts: Mapping[str, str]) -> None:
  """Checks that all processes have the same facts.

  Args:
    facts: At most 64 texts by name. All processes have the same names.

  Raises:
    UserError: A process differs from process 0. Every process raises the error,
      which names the first such process and the facts that differ.
  """
  if jax.process_count() == 1:
    return
  names = sorted(facts)
  digests = np.zeros((_SLOTS, 8), np.uint8)
  for slot, name in enumerate(names):
    text = f'{name}={facts[name]}'.encode()
    digests[slot] = np.frombuffer(hashlib.sha256(text).digest()[:8], np.uint8)
  gathered = multihost_utils.process_allgather(digests)
  differs = np.any(gathered != gathered[:1], axis=-1)
  for process in range(len(gathered)):
    slots = np.flatnonzero(differs[process])
    if slots.size:
      differing = [names[slot] for slot in slots if slot < len(names)]
      raise errors.UserError(
          f'process {process} of {len(gathered)} differs from process 0 in'
          f' {", ".join(differing)}: start all with the same flags and versions'
      )


def add(numbers: np.ndarray) -> np.ndarray:
  """Returns the sum of all processes' arrays, which have the same shape."""
  if jax.process_count() == 1:
    return numbers
  gathered = multihost_utils.process_allgather(numbers)
  return np.sum(gathered, axis=0, dtype=numbers.dtype)
