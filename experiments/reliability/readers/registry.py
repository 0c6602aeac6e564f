"""The readers of files from strangers or from disk, by name."""

import functools

from experiments.reliability.readers import base


@functools.cache
def all_readers() -> dict[str, base.Reader]:
  """Returns all readers by name; importing them takes seconds."""
  from experiments.reliability.readers import (
      models,
      releases,
      requests,
      runs,
      stores,
      texts,
  )

  parts = (releases, models, texts, stores, runs, requests)
  return {reader.name: reader for part in parts for reader in part.readers()}
