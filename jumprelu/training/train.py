"""A training run, from its config to its last checkpoint, or the rest of it."""

from collections.abc import Callable
import functools
import os
from typing import Any

from absl import logging
import jax
import numpy as np

from jumprelu import errors, lm, processes, sharding
from jumprelu.files import formats
from jumprelu.training import checkpoint, load_run, progress, run_dir, suite
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import step as step_lib

# What a run returns: finished, or told to stop and saved.
DONE, PREEMPTED = 'done', 'preempted'

# Told the step at the end of each segment; all processes must agree.
ShouldStop = Callable[[int], bool]
OnProgress = Callable[[progress.Progress], None]


def train(
    config: config_lib.TrainConfig,
    out: str | os.PathLike[str],
    *,
    should_stop: ShouldStop = lambda step: False,
    on_progress: OnProgress | None = None,
) -> str:
  """Runs, or resumes, the run of `config` in the directory `out`.

  Args:
    config: What to train.
    out: The run directory; new, empty, or one of the same config.
    should_stop: Whether to save and leave at the end of a segment.
    on_progress: Told how it goes every few seconds; by default it is printed.

  Returns:
    `DONE` or `PREEMPTED`.
  """
  directory = run_dir.RunDir(out)
  with directory.claim(config):
    if directory.is_done(config.steps):
      return DONE
    with jax.default_matmul_precision(config.matmul_precision):
      job = job_lib.make_job(config)
      processes.agree(job_lib.facts(job))
      return run(
          job, directory, should_stop=should_stop, on_progress=on_progress
      )


def run(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    *,
    should_stop: ShouldStop = lambda step: False,
    on_progress: OnProgress | None = None,
) -> str:
  """Trains `job` in its claimed directory; STATUS.json says how it ended."""
  counts = progress.Counts()
  status = functools.partial(
      directory.write_status, total_steps=job.config.steps
  )
  try:
    with checkpoint.Checkpointer(
        directory.checkpoints, job.config.checkpoint
    ) as checkpointer:
      outcome = _run(
          job,
          directory,
          checkpointer,
          counts,
          should_stop=should_stop,
          on_progress=on_progress,
      )
  except BaseException as e:
    code = getattr(e, 'exit_code', 1)
    status('failed', **vars(counts), exit_code=code, error=str(e))
    raise
  status(outcome, **vars(counts), exit_code=0 if outcome == DONE else 42)
  return outcome


def _run(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    counts: progress.Counts,
    *,
    should_stop: ShouldStop,
    on_progress: OnProgress | None,
) -> str:
  config, mesh = job.config, job.mesh
  total, batches = config.steps, config.stream.batches
  most = config.stream.batches_per_dispatch

  # Shapes and shardings: nothing is allocated yet.
  stored = suite.stored_state(job.groups, mesh=mesh)
  segments = step_lib.make_segments(
      job.groups,
      config.optim,
      total_steps=total,
      batch=config.stream.batch,
      max_steps=most,
      mesh=mesh,
      backend=config.backend,
  )

  # State, and where to start.
  state, scales = _restore_or_init(
      job, directory, checkpointer.latest_verified(stored), counts
  )
  _record_start(job, directory, counts, scales)
  reporter = progress.Reporter(
      counts,
      config,
      write=directory.append_metrics,
      on_progress=on_progress,
      skipped=_skipped(state, job),
  )

  # The loop: dispatch a segment, only then read the metrics of the one before.
  step, block, state = counts.step, None, segments.prepare(state)
  while step < total:
    number, first = divmod(step, batches)
    steps = min(most, batches - first, total - step)
    with jax.transfer_guard('disallow'):
      if block is None or first == 0:
        block = None  # Memory holds one.
        block = job.stream.make_block(number, scales)
      put = job.stream.put
      state, metrics = segments.run(state, block, put(first), put(steps))
    step += steps
    reporter.add(step, metrics, dropped=block.dropped)
    stop = should_stop(step)
    if stop or step == total or _is_due(config, step):
      reporter.flush()
      directory.write_status('running', total_steps=total, **vars(counts))
      whole = suite.strip_padding(segments.finish(state), job.groups, mesh=mesh)
      checkpointer.save(step, whole, meta=_meta(job, counts, scales))
    if stop and step < total:
      return PREEMPTED
  return DONE


def _restore_or_init(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    found: tuple[suite.TrainState, dict[str, Any]] | None,
    counts: progress.Counts,
) -> tuple[suite.TrainState, dict[lm.Tap, float]]:
  """Chooses where to start.

  1. At the newest checkpoint that verifies. Its scales are the run's: they are
     never estimated again. Text and language model must be the run's.
  2. Checkpoints of which none verifies are an error (`latest_verified`): a run
     never starts afresh on top of another.
  3. Without checkpoints, afresh. Scales that a run killed before its first
     checkpoint has left are kept, if its text and language model were these.
  """
  if found is None:
    left = directory.read_suite()
    same = all(left.get(key) == value for key, value in _origin(job).items())
    if same and left.get('scales'):
      scales = lm.from_json_keys(left['scales'])
    else:
      scales = job.stream.estimate_scales()
    return suite.init_state(job.groups, mesh=job.mesh), scales
  state, meta = found
  meta = load_run.migrated_meta(directory.checkpoints, meta)
  _check_origin(job, directory, meta)
  vars(counts).update(meta['counts'])
  if meta['environment'] != run_dir.environment():
    logging.warning(
        'step %d: resumed on other devices or versions: the same data in the'
        ' same order, not the same bits',
        counts.step,
    )
  state = suite.add_padding(state, job.groups, mesh=job.mesh)
  return state, lm.from_json_keys(meta['scales'])


def _origin(job: job_lib.Job) -> dict[str, str]:
  """The digests of what the activations are computed from."""
  return {'data_digest': job.data_digest, 'lm_digest': job.lm_digest}


def _check_origin(
    job: job_lib.Job, directory: run_dir.RunDir, meta: dict[str, Any]
) -> None:
  """Refuses to resume on another text or language model."""
  if meta['data_digest'] != job.data_digest:
    raise errors.UserError(
        f'--out={directory.path}: was trained on other text (digest'
        f' {meta["data_digest"][:12]}, now {job.data_digest[:12]}); choose'
        ' another directory, or the same text'
    )
  # Older checkpoints have no digest of the model. Weights of another dtype,
  # which --lm_dtype=auto makes on another device, cannot be compared.
  before = meta.get('lm_digest')
  if not before or meta['lm_dtype'] != job.lm_dtype:
    return
  if before != job.lm_digest:
    raise errors.UserError(
        f'--model={job.config.model}: has other weights (digest'
        f' {job.lm_digest[:12]}) than --out={directory.path} was trained on'
        f' ({before[:12]}); choose another directory, or the same model'
    )


def _record_start(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    counts: progress.Counts,
    scales: dict[lm.Tap, float],
) -> None:
  """Writes what is known when a run starts, before its first step."""
  directory.note_start(counts.step)
  directory.cut_metrics(counts.step)
  mesh = {} if job.mesh is None else dict(job.mesh.shape)
  directory.write_env(mesh=mesh)
  directory.write_suite(job_lib.describe(job, scales))


def _skipped(
    state: suite.TrainState, job: job_lib.Job
) -> dict[str, np.ndarray]:
  """Returns the steps that each group's members have skipped so far."""
  counters = {name: group.skipped for name, group in state.groups.items()}
  if job.mesh is not None:
    # Every process reads the members of all.
    replicated = sharding.replicated(job.mesh)
    counters = jax.jit(lambda x: x, out_shardings=replicated)(counters)
  counters = jax.device_get(counters)
  # Without the padding, which metrics leave out as well.
  return {g.name: counters[g.name][: len(g.members)] for g in job.groups}


def _is_due(config: config_lib.TrainConfig, step: int) -> bool:
  """Whether a periodic checkpoint is due: at every so manieth block's end."""
  return step % (config.stream.batches * config.checkpoint.every_blocks) == 0


def _meta(
    job: job_lib.Job, counts: progress.Counts, scales: dict[lm.Tap, float]
) -> dict[str, Any]:
  """What a checkpoint says besides the state."""
  block, batch = divmod(counts.step, job.config.stream.batches)
  return {
      **formats.stamp(formats.Kind.CHECKPOINT),
      'config': config_lib.to_record(job.config),
      'counts': dict(vars(counts)),
      'block': block,
      'batch': batch,
      'scales': lm.to_json_keys(scales),
      **_origin(job),
      'lm_dtype': job.lm_dtype,
      'environment': run_dir.environment(),
  }
