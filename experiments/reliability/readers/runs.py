"""Readers of run directories and checkpoints."""

import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reliability import mutations
from experiments.reliability.readers import base
from jumprelu import errors
from jumprelu.activations import scales as scales_lib
from jumprelu.files import digests, formats
from jumprelu.run import status
from jumprelu.training import (
    checkpoint_reading,
    load_run,
    metrics_file,
    run_dir,
    suite,
)
from jumprelu.training import config as config_lib

_LINES = (mutations.of_lines, mutations.of_lines, mutations.of_bytes)
_JSON = (mutations.of_json,)


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  return [
      base.Reader(
          'run', make_run, _read_run,
          {'*.json': _JSON, 'metrics.jsonl': _LINES}, writes=True,
      ),
      base.Reader(
          'run_status', make_run, _read_status,
          {'config.json': _JSON,
           'STATUS.json': (*_JSON, *_JSON, mutations.of_text)},
      ),
      base.Reader(
          'run_metrics', make_run, _read_metrics,
          {'suite.json': _JSON, 'metrics.jsonl': _LINES},
      ),
      base.Reader(
          'checkpoint', _checkpoint, _read_checkpoint,
          {'**/*': (mutations.of_bytes,), '**/_*': (mutations.of_text,),
           '**/_CHECKPOINT_METADATA': _JSON, '**/*METADATA': _JSON},
          protection=base.Protection.VALUES,
      ),
      base.Reader(
          'checkpoint_record', _record, _read_record, {'record.json': _JSON},
          is_checked=True,
      ),
  ]  # fmt: skip


@functools.cache
def _config() -> config_lib.TrainConfig:
  return config_lib.resolve(
      {
          'model': 'gemma2_nano',
          'layer': 1,
          'sites': ('resid_post',),
          'widths': (8,),
          'sparsity_coefficients': ('1e-3', '4e-3'),
          'tokens': 2048,
          'stream.block_positions': 1024,
          'stream.batch': 128,
          'stream.lm_sequences': 8,
          'corpus.sequence_length': 64,
      }
  )


def make_run(folder: pathlib.Path) -> None:
  """Writes the JSON files of a run, without checkpoints."""
  config = _config()
  groups = load_run.make_suite(config)
  taps = suite.taps(groups)
  scales = scales_lib.Scales(
      dict.fromkeys(taps, 2.0),
      dict.fromkeys(taps, 9.0),
      {tap: np.zeros(4) for tap in taps},
  )
  directory = run_dir.RunDir(folder)
  with directory.claim(config):
    directory.note_start(0)
    directory.write_env()
    directory.write_suite(_suite(groups, scales))
    directory.write_status(
        'running', step=8, total_steps=16, tokens_trained=1024, seconds=2.5
    )
    for step in (4, 8):
      directory.append_metrics(_metrics(groups, step))


def _suite(groups: Any, scales: scales_lib.Scales) -> dict[str, Any]:
  members = [
      {
          'group': group.name,
          'index': index,
          'name': suite.member_name(member),
          **dataclasses.asdict(member),
      }
      for group in groups
      for index, member in enumerate(group.members)
  ]
  return {
      'model': 'gemma2_nano', 'd_site': {'resid_post': 128}, 'layer': 1,
      **scales.to_json(), 'data_digest': '0' * 64, 'lm_digest': '0' * 64,
      'members': members,
  }  # fmt: skip


def _metrics(groups: Any, step: int) -> dict[str, Any]:
  names = {g.name: [suite.member_name(m) for m in g.members] for g in groups}
  values = {
      name: {k: [0.5] * len(members) for k in ('loss', 'fvu', 'l0')}
      for name, members in names.items()
  }
  return {
      'step': step, 'tokens_trained': 128 * step, 'rows_dropped': 0,
      'seconds': 0.5 * step, 'positions': 128 * step, 'learning_rate': 1e-3,
      'sparsity_factor': 1.0, 'members': names, 'groups': values,
  }  # fmt: skip


def _read_run(folder: pathlib.Path) -> Any:
  """Opens a run as a start does, after which STATUS.json and others change."""
  directory = run_dir.RunDir(folder)
  with directory.claim(_config()):
    directory.note_start(8)
    directory.note_end(errors.DataError('a fault'))
    record = directory.read_suite()
    scales = scales_lib.from_json(record) if record else None
    directory.is_done(16)
    directory.truncate_metrics(4)
    directory.write_failure(errors.DataError('a fault'), {'step': 8})
  return scales and dict(scales)


def _read_status(folder: pathlib.Path) -> Any:
  # The folder in which runs are looked for is the parent of the run.
  runs = [
      status.read(path, now=time.time(), stale_after=60.0)
      for path in status.find([str(folder)])
  ]
  return status.table(runs)


def _read_metrics(folder: pathlib.Path) -> Any:
  return metrics_file.read(folder, name='run')


_STEP = 8


def _state() -> dict[str, Any]:
  return {
      'params': jnp.arange(24, dtype=jnp.float32).reshape(4, 6),
      'nu': jnp.ones((4, 6), jnp.bfloat16),
      'step': jnp.asarray(_STEP, jnp.int32),
  }


def _checkpoint(folder: pathlib.Path) -> None:
  from orbax.checkpoint import v1 as ocp

  leaves = digests.named_leaves(_state())
  records, _ = digests.leaf_records(leaves)
  meta = {
      **formats.stamp(formats.Kind.CHECKPOINT),
      'config': config_lib.to_record(_config()),
      'data_digest': '0' * 64,
  }
  ocp.save_checkpointables(
      folder / str(_STEP),
      {'state': leaves},
      custom_metadata=digests.seal(_STEP, records, meta),
  )


def _read_checkpoint(folder: pathlib.Path) -> Any:
  restored = checkpoint_reading.restore(folder, _state())
  if restored is None:
    raise base.Wrong('a damaged checkpoint counts as none')
  load_run.migrated_meta(folder, restored.meta)
  return jax.device_get(restored.state), restored.meta


def _record(folder: pathlib.Path) -> None:
  meta = {
      'step': _STEP,
      'config': config_lib.to_record(_config()),
      'scales': {'layer_1.resid_post': 2.0},
      'norm_limits': {},
      'format': 2,
  }
  (folder / 'record.json').write_text(json.dumps(meta))


def _read_record(folder: pathlib.Path) -> Any:
  """Reads a record whose digest is right, as one of a later version is."""
  try:
    meta = json.loads((folder / 'record.json').read_bytes())
    sealed = json.loads(json.dumps(digests.seal(_STEP, {}, meta)))
    _, meta = digests.unseal(sealed, _STEP)
  except (ValueError, TypeError, RecursionError) as error:
    # A record is read together with its checkpoint, which then counts as
    # damaged.
    raise errors.DataError(str(error)) from error
  meta = load_run.migrated_meta(folder, meta)
  return meta
