"""A small store of a toy suite's activations."""

import contextlib
import dataclasses
import pathlib

from jumprelu.activations import store
from jumprelu.training import harvest_store
from jumprelu.training import job as job_lib
from tests import toy_suite

# Each array has 4 files per block, and each file 2 chunks of 2 batches.
FILE_BYTES = 4096
CHUNK_BYTES = 2048
DTYPE = 'float32'


@contextlib.contextmanager
def small_files(monkeypatch):
  """Makes stores split even small blocks into several files and chunks."""
  make = store.make_geometry
  with monkeypatch.context() as patch:
    patch.setattr(
        store,
        'make_geometry',
        lambda *args, **kwargs: make(
            *args, **kwargs, file_bytes=FILE_BYTES, chunk_bytes=CHUNK_BYTES
        ),
    )
    yield


def write(path, job=None, *, stop=(), dtype=DTYPE, **changes):
  """Writes or resumes the store of a toy job; returns the outcome."""
  job = job or toy_suite.make_job(toy_suite.make_config(**changes))
  facts = harvest_store.make_facts(
      job, dtype=dtype, lm_digest='the table', tokenizer_sha256='none'
  )
  writer = store.Writer(pathlib.Path(path))
  with writer.claim():
    return harvest_store.write_blocks(
        writer, job, facts, should_stop=lambda block: block in stop
    )


def open_store(path, *, mesh=None, config=None, dtype=DTYPE, **changes):
  """Opens a store for a toy config."""
  config = config or toy_suite.make_config(**changes)
  return store.Stored(
      dataclasses.replace(config, store=str(path)),
      toy_suite.taps(config),
      dtype=dtype,
      mesh=mesh,
  )


def make_job(path, *, mesh=None, **changes):
  """Returns a training job that reads the store."""
  config = toy_suite.make_config(store=str(path), **changes)
  stored = open_store(path, mesh=mesh, config=config)
  groups = toy_suite.make_groups(config)
  return job_lib.Job(
      config,
      groups,
      stored,
      stored.data_digest,
      mesh,
      lm_digest=stored.manifest['lm_digest'],
      lm_dtype=DTYPE,
  )


def files(path):
  """Returns {relative path: bytes} of a store, without the lock."""
  return {
      str(file.relative_to(path)): file.read_bytes()
      for file in sorted(pathlib.Path(path).rglob('*'))
      if file.is_file() and file.name != 'store.lock'
  }


def flip(path, at):
  """Flips a bit of a file's byte `at`."""
  data = bytearray(path.read_bytes())
  data[at] ^= 4
  path.write_bytes(data)
