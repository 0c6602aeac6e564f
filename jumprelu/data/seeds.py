"""Hashes of seeds."""

import hashlib


def spread(seed: int) -> int:
  """Returns a 32-bit hash of the seed.

  grain shuffles epoch e of seed s like epoch 0 of seed s + e. Without a hash,
  runs with neighbouring seeds would have the same epochs, shifted by one.
  """
  return _hash(b'%d' % seed)


def folded(seed: int, count: int) -> int:
  """Returns the 32-bit seed of a run after a number of rollbacks, from 1."""
  return _hash(b'%d after %d' % (seed, count))


def _hash(text: bytes) -> int:
  return int.from_bytes(hashlib.sha256(text).digest()[:4], 'little')
