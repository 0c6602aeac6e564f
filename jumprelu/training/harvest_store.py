"""The writing of stores, with the activations that a run would stream."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib
import time
from typing import Any

from absl import logging
import jax

from jumprelu import errors, processes
from jumprelu.activations import blocks, store
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import stream as stream_lib
from jumprelu.activations.store import record
from jumprelu.files import progress_line
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import progress_lines, run_dir, start_lines, train

# Fields of a store's record that may differ when a store is resumed. `arrays`,
# `geometry` and `identity` are compared by parts (`_comparable`).
_NOT_COMPARED = (
    'arrays',
    'blocks_sha256',
    'complete',
    'dropped',
    'environment',
    'geometry',
    'identity',
    'kept',
    'rows',
    'scales',
    'norm_limits',
    'centers',
)


def harvest_store(
    config: config_lib.TrainConfig,
    *,
    should_stop: Callable[[int], bool] = lambda block: False,
) -> str:
  """Writes the blocks of `config` that are missing in `config.store`.

  A store with fewer blocks than `config.tokens` needs is extended. One that
  has more is left alone, because its first blocks are those of `config`.

  All processes call this function together.

  Args:
    config: The config of the training runs that will read the store.
    should_stop: Maps the number of the next block to whether to stop before it.

  Returns:
    `train.DONE` or `train.PREEMPTED`.

  Raises:
    UserError: the folder is in use, too small, or holds other files or a store
      of another config.
    MissingInputError, DataError: an input is missing or damaged.
  """
  path = pathlib.Path(config.store).expanduser()
  writer = store.Writer(path)
  with (
      writer.claim(),
      jax.default_matmul_precision(config.matmul_precision),
  ):
    job = job_lib.make_job(
        dataclasses.replace(config, store=''),
        on_phase=progress_lines.print_phase,
    )
    processes.agree(job_lib.facts(job))
    stream = job.stream
    if not isinstance(stream, stream_lib.Stream):
      raise TypeError(
          f'blocks come from a {type(stream).__name__}: only those of a Stream,'
          ' computed from text, can be stored'
      )
    manifest = stream.loader.cache.manifest
    facts = make_facts(
        job,
        dtype=job.lm_dtype,
        lm_digest=job.lm_digest,
        tokenizer_sha256=manifest['tokenizer_sha256'],
    )
    return write_blocks(writer, job, facts, should_stop=should_stop)


def make_facts(
    job: job_lib.Job, *, dtype: str, **origin: str
) -> dict[str, Any]:
  """Returns the description of a job's store, without the scales.

  Args:
    job: The job whose blocks are stored.
    dtype: The dtype of activations.
    **origin: Further fields on the origin of the blocks.
  """
  config, mesh = job.config, job.mesh
  widths = {tap: w for group in job.groups for tap, w in group.widths.items()}
  names = record.array_names(widths)
  geometry = store.make_geometry(
      {names[str(tap)]: width for tap, width in widths.items()},
      dtype,
      blocks=config.blocks,
      block_positions=config.stream.block_positions,
      batch=config.stream.batch,
      shards=config.stream.logical_shards,
      data_axis=1 if mesh is None else mesh.shape['data'],
  )
  return {
      'identity': store.identity(config, dtype=dtype),
      'arrays': names,
      'geometry': geometry.to_json(),
      'data_digest': job.data_digest,
      'scale_positions': config.stream.scale_tokens,
      'environment': run_dir.environment(),
      **origin,
  }


def write_blocks(
    writer: store.Writer,
    job: job_lib.Job,
    facts: dict[str, Any],
    *,
    should_stop: Callable[[int], bool] = lambda block: False,
) -> str:
  """Writes the missing blocks to a store that the caller has claimed.

  Args:
    writer: The writer of the store.
    job: The job whose blocks are stored.
    facts: The description from `make_facts`.
    should_stop: Maps the number of the next block to whether to stop before it.

  Returns:
    `train.DONE` or `train.PREEMPTED`.
  """
  stored, complete = writer.read_existing()
  if stored:
    _check_stored(writer.directory, stored, facts)
    excess = stored['geometry']['blocks'] - job.config.blocks
    if complete and excess >= 0:
      return train.DONE
    if excess > 0:
      raise errors.UserError(
          f'--store={writer.directory}: holds a part of a store of {excess}'
          ' more blocks; complete it with the same --tokens, which serves runs'
          ' of fewer tokens too'
      )
    geometry = stored['geometry'] | {'blocks': job.config.blocks}
    facts = stored | {'geometry': geometry}
  # A resumed store keeps its scales, because they decided which of the stored
  # rows were dropped, and its division into files.
  scales = _scales(job, facts)
  axis = 1 if job.mesh is None else job.mesh.shape['data']
  first = writer.start(facts | scales.to_json(), data_axis=axis)
  geometry, total = writer.geometry, job.config.blocks
  missing = total - first
  size = geometry.block_bytes() * missing / 2**30
  progress_lines.print_phase(
      f'harvest: {missing} block{"s" * (missing > 1)} of {total} to write:'
      f' {size:.3g} GiB'
  )
  progress_lines.print_phase(start_lines.compiling('writing blocks'))
  progress = progress_line.ProgressLine(
      'harvest', missing, quiet=not processes.is_main()
  )
  for index in range(first, total):
    progress.update(index - first)
    seconds = write_block(writer, job.stream, index, scales)
    # Not after the first block, whose time includes compilation.
    if index == min(first + 1, total - 1):
      line = cost_line(*seconds, read=_seconds(writer.read_block, index))
      progress_lines.print_phase(f'harvest: {line}')
    if index + 1 < total and should_stop(index + 1):
      return train.PREEMPTED
  writer.finish()
  return train.DONE


def write_block(
    writer: store.Writer,
    source: blocks.Source,
    index: int,
    scales: scales_lib.Scales,
) -> tuple[float, float]:
  """Writes a block; returns the seconds of its computation and of its write."""
  start = time.monotonic()
  block = jax.block_until_ready(source.make_block(index, scales))
  forwarded = time.monotonic()
  writer.write_block(index, block)
  return forwarded - start, time.monotonic() - forwarded


def cost_line(forward: float, write: float, *, read: float) -> str:
  """Returns a line with the number of training runs from which a store pays.

  When n runs stream, each block costs n forward passes. When they share a
  store, it costs one forward pass, one write and n reads. Later reads may be
  slower than the measured one, because the system still caches a block that was
  just written.

  Args:
    forward: The seconds of the forward pass of a block.
    write: The seconds in which the block was written.
    read: The seconds in which the block was read.
  """
  line = (
      f'a block takes {forward:.3g} s to compute, {write:.3g} s to write and at'
      f' least {read:.3g} s to read: '
  )
  if read >= forward:
    return line + 'streaming is cheaper, however often you train'
  runs = math.floor((forward + write) / (forward - read)) + 1
  return line + f'streaming is cheaper for fewer than {runs} training runs'


def _check_stored(
    path: pathlib.Path, stored: dict[str, Any], facts: dict[str, Any]
) -> None:
  """Raises UserError if the store is that of another config."""
  differing = record.differences(_comparable(stored), _comparable(facts))
  if differing:
    raise errors.UserError(
        f'--store={path}: holds a store of another config:'
        f' {"; ".join(differing)}; choose another directory, or the same flags'
    )
  if stored['environment'] != facts['environment']:
    logging.warning(
        '%s: resumed on other devices or with other versions; rows and their'
        ' order are the same, but values may differ in rounding',
        path,
    )


def _comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields that must be the same when a store is resumed."""
  compared = {k: v for k, v in facts.items() if k not in _NOT_COMPARED}
  taps = sorted(facts['arrays'])
  return compared | record.stored_identity(facts) | {'taps': taps}


def _scales(job: job_lib.Job, facts: Mapping[str, Any]) -> scales_lib.Scales:
  """Returns the scales of a resumed store, or estimates those of a new one."""
  if facts.get('scales'):
    return scales_lib.from_json(facts)
  progress_lines.print_phase(start_lines.estimating(job.config))
  return job.stream.estimate_scales()


def _seconds(work: Callable[[int], object], index: int) -> float:
  """Returns the seconds of `work(index)`."""
  start = time.monotonic()
  work(index)
  return time.monotonic() - start
