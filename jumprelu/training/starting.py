"""The start of a run: from its newest checkpoint, or from an initial state."""

from collections.abc import Callable
from typing import Any

from absl import logging
import jax

from jumprelu import processes
from jumprelu.activations import blocks
from jumprelu.activations import scales as scales_lib
from jumprelu.files import disk
from jumprelu.training import (
    addition,
    checkpoint,
    initial,
    load_run,
    padding,
    progress,
    resume,
    rollback,
    run_dir,
    start_lines,
    suite,
)
from jumprelu.training import job as job_lib


def begin(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    counts: progress.Counts,
    *,
    on_phase: Callable[[str], None],
    is_rollback: bool,
) -> tuple[suite.TrainState, scales_lib.Scales, blocks.Source]:
  """Returns the first state, the scales and the source of blocks.

  Sets `counts`, and records the start in the directory.
  """
  if directory.has_checkpoint():
    on_phase('restoring the newest checkpoint')
  # No arrays are allocated yet: this has shapes only.
  stored = _stored_state(job, directory)
  state, scales = _restore_or_init(
      job,
      directory,
      checkpointer.latest_verified(stored),
      counts,
      on_phase=on_phase,
  )
  counts.rollbacks = rollback.count(directory, counts.step)
  stream = rollback.stream_at(job, counts.rollbacks)
  if not is_rollback:
    directory.note_start(counts.step)
  _record_start(job, directory, counts, scales)
  start_lines.announce(job, directory, counts.step, on_phase=on_phase)
  return state, scales, stream


def _stored_state(
    job: job_lib.Job, directory: run_dir.RunDir
) -> suite.TrainState:
  """Returns the shapes of a checkpoint's arrays.

  Raises:
    FullDiskError: checkpoints have too little space.
  """
  config, stored = job.config, suite.stored_state(job.groups, mesh=job.mesh)
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(stored))
  # A checkpoint is removed after the next one is complete. The one before the
  # decay of the learning rate is kept as well.
  limit = config.checkpoint.keep + 1 + bool(config.optim.lr_decay)
  missing = limit - len(directory.checkpoint_steps())
  missing = min(missing, -(-config.blocks // config.checkpoint.every_blocks))
  if processes.is_main():
    disk.require(
        directory.checkpoints,
        max(missing, 0) * size,
        what=f'up to {missing} checkpoints',
        cure='or lower --checkpoint.keep',
    )
  return stored


def _restore_or_init(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    restored: tuple[suite.TrainState, dict[str, Any]] | None,
    counts: progress.Counts,
    *,
    on_phase: Callable[[str], None],
) -> tuple[suite.TrainState, scales_lib.Scales]:
  """Returns the state in which training starts, and the taps' scales.

  1. With a verified checkpoint, the run resumes there with its state, scales
     and counts (`counts` is updated). Text and language model must be those of
     the checkpoint.
  2. Without any checkpoint, the run starts at step 0. An earlier start may have
     been killed before its first checkpoint. Its scales in suite.json are kept
     if text and language model are the same.
  3. If no existing checkpoint verifies, `latest_verified` has raised an error,
     because starting again would overwrite the run.
  """
  origin = resume.Origin(job.data_digest, job.lm_digest, job.lm_dtype)
  if restored is None:
    vars(counts).update(vars(progress.Counts()))
    scales = _initial_scales(job, directory, origin, on_phase=on_phase)
    started = suite.init_state(job.groups, scales, mesh=job.mesh)
    if job.config.init_from:
      on_phase(f'starting from the SAEs of {job.config.init_from}')
      started = initial.start(started, job.groups, scales, job.sources)
    return started, scales
  state, meta = restored
  meta = load_run.migrated_meta(directory.checkpoints, meta)
  model, before = job.config.model, directory.read_config().model
  origin.check(
      meta,
      out=str(directory.path),
      model=model,
      before_model=before if before != model else '',
  )
  vars(counts).update(vars(progress.Counts()) | meta['counts'])
  if meta['environment'] != run_dir.environment():
    logging.warning(
        'step %d: resumed on other devices or with other versions; data and'
        ' their order are the same, but results may differ in rounding',
        counts.step,
    )
  state = padding.add(state, job.groups, mesh=job.mesh)
  return state, scales_lib.from_json(meta)


def _initial_scales(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    origin: resume.Origin,
    *,
    on_phase: Callable[[str], None],
) -> scales_lib.Scales:
  """Returns the scales with which a run starts, from records where possible."""
  record = directory.read_suite()
  if origin.is_recorded_in(record) and record.get('scales'):
    return scales_lib.from_json(record)
  taps = suite.taps(job.groups)
  shared = scales_lib.Scales({})
  if job.added_to:
    shared = addition.shared_scales(job.added_to, origin)
    if set(taps) <= set(shared):
      return shared.only(taps)
  on_phase(start_lines.estimating(job.config))
  return job.stream.estimate_scales().shared(shared)


def _record_start(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    counts: progress.Counts,
    scales: scales_lib.Scales,
) -> None:
  """Writes the records of a start, before its first step."""
  directory.write_config(job.config)
  directory.truncate_metrics(counts.step)
  mesh = {} if job.mesh is None else dict(job.mesh.shape)
  directory.write_env(mesh=mesh)
  # A resumed run keeps the records of its sources, which it does not read again,
  # and of its extensions.
  before = directory.read_suite()
  kept = {x: before[x] for x in ('init_from', 'extensions') if x in before}
  directory.write_suite(kept | job_lib.describe(job, scales))
