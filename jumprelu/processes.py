"""What several processes must know of each other, each in one call.

Every function is a collective: all processes call it, in the same order, or
they wait for each other for ever. With one process each of them is free.
"""

from collections.abc import Mapping, Sequence
import hashlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from jumprelu import errors

_SLOTS = 64


def is_main() -> bool:
  """Whether this is the process that writes files and speaks."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'jumprelu: {name}')


def from_main(numbers: Sequence[int]) -> list[int]:
  """Returns process 0's numbers: at most 64, each from 0 to 2^31 - 1."""
  if jax.process_count() == 1:
    return list(numbers)
  padded = np.full(_SLOTS, -1, np.int32)
  padded[: len(numbers)] = numbers
  padded = multihost_utils.broadcast_one_to_all(padded)
  return [int(number) for number in padded if number >= 0]


def from_all(number: int) -> list[int]:
  """Returns the number that each process gave, in their order."""
  if jax.process_count() == 1:
    return [number]
  numbers = multihost_utils.process_allgather(np.array(number, np.int32))
  return [int(number) for number in numbers]


def agree(facts: Mapping[str, str]) -> None:
  """Checks that all processes hold the same facts, at most 64 of them.

  Raises:
    errors.UserError: in every process, naming the first process that differs
      from process 0 and the facts in which it does.
  """
  if jax.process_count() == 1:
    return
  names = sorted(facts)
  own = np.zeros((_SLOTS, 8), np.uint8)
  for slot, name in enumerate(names):
    text = f'{name}={facts[name]}'.encode()
    own[slot] = np.frombuffer(hashlib.sha256(text).digest()[:8], np.uint8)
  everyones = multihost_utils.process_allgather(own)
  differs = np.any(everyones != everyones[:1], axis=-1)
  for process in range(len(everyones)):
    slots = np.flatnonzero(differs[process])
    if slots.size:
      what = [names[slot] for slot in slots if slot < len(names)]
      raise errors.UserError(
          f'process {process} of {len(everyones)} differs from process 0 in'
          f' {", ".join(what)}: start all with the same flags and versions'
      )


def add(numbers: np.ndarray) -> np.ndarray:
  """Adds up an array of all processes, which have the same shape."""
  if jax.process_count() == 1:
    return numbers
  everyones = multihost_utils.process_allgather(numbers)
  return np.sum(everyones, axis=0, dtype=numbers.dtype)
