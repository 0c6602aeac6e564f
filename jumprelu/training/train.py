"""The loop of a training run, from its start or resumption to its last step."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import os
import types
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, processes, sharding
from jumprelu.activations import scales as scales_lib
from jumprelu.files import formats
from jumprelu.training import (
    checkpoint,
    extension,
    initial,
    padding,
    profiling,
    progress,
    progress_lines,
    rollback,
    run_dir,
    schedules,
    start_lines,
    starting,
    suite,
    tensorboard,
)
from jumprelu.training import config as config_lib
from jumprelu.training import job as job_lib
from jumprelu.training import step as step_lib

# The outcomes of a run: finished, or saved and stopped before the end because
# `should_stop` returned True.
DONE, PREEMPTED = 'done', 'preempted'

# Maps the step at the end of a segment to whether to save and stop. The result
# must be the same in all processes.
ShouldStop = Callable[[int], bool]
OnProgress = Callable[[progress_lines.Progress], None]
OnPhase = Callable[[str], None]


class Watch(NamedTuple):
  """The ways to watch a run; none of them changes its results."""

  # Receives the progress every few seconds.
  on_progress: OnProgress = progress_lines.print_progress
  # Receives a line of text at the start of each slow phase of a start.
  on_phase: OnPhase = progress_lines.print_phase
  # Whether to write event files for TensorBoard (`tensorboard.Scalars`).
  tensorboard: bool = False
  # The number of steps to trace (`profiling.Profile`).
  profile_steps: int = 0


PRINTED = Watch()
QUIET = Watch(progress_lines.silent, progress_lines.silent)


def train(
    config: config_lib.TrainConfig,
    out: str | os.PathLike[str],
    *,
    should_stop: ShouldStop = lambda step: False,
    watch: Watch = PRINTED,
    sources: initial.Sources = types.MappingProxyType({}),
    extend: bool = False,
    add_to: str | os.PathLike[str] = '',
    stop_code: Callable[[], int] = lambda: errors.EXIT_PREEMPTED,
) -> str:
  """Starts or resumes the run of `config` in the directory `out`.

  Args:
    config: The config of the run.
    out: The run directory: new, empty, or that of a run with the same config.
    should_stop: Returns whether to save and stop at the end of a segment.
    watch: The ways to watch the run; by default phases and progress are
      printed.
    sources: The SAEs of the config's `init_from` (`release.starts.find`); not
      needed to resume.
    extend: Whether the directory may hold a shorter run that `config` extends
      (`extension.extended`).
    add_to: The run directory to which the members are added (`addition`), whose
      scales they share.
    stop_code: Returns the exit code of a process whose run has stopped before
      its end, for STATUS.json.

  Returns:
    `DONE` or `PREEMPTED`.

  Raises:
    UserError: the config does not fit its inputs, the devices or the directory.
    MissingInputError, DataError: an input is missing or damaged.
    NumericalError: training cannot continue.
  """
  directory = run_dir.RunDir(out)
  claimed = config
  if extend:
    claimed = extension.unextended(config, directory.read_config())
  with directory.claim(claimed):
    if extend:
      extension.branch(directory, config, on_phase=watch.on_phase)
    if directory.is_done(config.steps):
      return DONE
    with jax.default_matmul_precision(config.matmul_precision):
      job = _make_job(config, directory, watch, sources=sources, add_to=add_to)
      return run(
          job,
          directory,
          should_stop=should_stop,
          watch=watch,
          stop_code=stop_code,
      )


def _make_job(
    config: config_lib.TrainConfig,
    directory: run_dir.RunDir,
    watch: Watch,
    *,
    sources: initial.Sources,
    add_to: str | os.PathLike[str],
) -> job_lib.Job:
  """Returns the job of a config; a failure is written to STATUS.json."""
  try:
    job = job_lib.make_job(config, on_phase=watch.on_phase, sources=sources)
    if add_to:
      job = job._replace(added_to=run_dir.read_suite(add_to))
    processes.agree(job_lib.facts(job))
  except BaseException as e:
    counts = vars(progress.Counts())
    directory.write_failure(e, {'total_steps': config.steps, **counts})
    raise
  return job


def run(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    *,
    should_stop: ShouldStop = lambda step: False,
    watch: Watch = PRINTED,
    stop_code: Callable[[], int] = lambda: errors.EXIT_PREEMPTED,
) -> str:
  """Trains `job` in a directory that the caller has claimed.

  STATUS.json records the outcome, or the error that ended the run. The
  arguments, results and errors are those of `train`.
  """
  counts = progress.Counts()
  status = functools.partial(
      directory.write_status, total_steps=job.config.steps
  )
  try:
    with checkpoint.Checkpointer(
        directory.checkpoints,
        job.config.checkpoint,
        branch=schedules.decay_start(job.config.optim, job.config.steps),
    ) as checkpointer:
      outcome = _run(
          job,
          directory,
          checkpointer,
          counts,
          should_stop=should_stop,
          watch=watch,
      )
  except BaseException as e:
    # The counts of this start replace those of an earlier one.
    status('failed', **vars(counts))
    directory.note_end(e)
    directory.write_failure(e, {})
    raise
  code = 0 if outcome == DONE else stop_code()
  status(outcome, **vars(counts), exit_code=code)
  return outcome


def _run(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    counts: progress.Counts,
    *,
    should_stop: ShouldStop,
    watch: Watch,
) -> str:
  """Trains until the last step or until `should_stop`; returns the outcome."""
  segments = _make_segments(job)
  attempt = functools.partial(
      _attempt,
      job,
      directory,
      checkpointer,
      counts,
      segments=segments,
      should_stop=should_stop,
      watch=watch,
  )
  is_rollback = False
  while True:
    try:
      return attempt(is_rollback=is_rollback)
    except progress.StuckError as error:
      line = rollback.go_back(job, directory, checkpointer, error)
    watch.on_phase(line)
    is_rollback = True


def _attempt(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    counts: progress.Counts,
    *,
    segments: step_lib.Segments,
    should_stop: ShouldStop,
    watch: Watch,
    is_rollback: bool,
) -> str:
  """Trains from the newest checkpoint; returns the outcome.

  Raises:
    StuckError: all members failed.
  """
  config, mesh = job.config, job.mesh
  total, batches = config.steps, config.stream.batches
  max_steps = config.stream.batches_per_dispatch
  state, scales, stream = starting.begin(
      job,
      directory,
      checkpointer,
      counts,
      on_phase=watch.on_phase,
      is_rollback=is_rollback,
  )
  skipped = _skipped(state, job)
  with _observers(job, directory, counts, watch, skipped) as observers:
    reporter, profile = observers

    # A segment is dispatched before the metrics of the previous one are read.
    step, block, state = counts.step, None, segments.prepare(state)
    watch.on_phase(start_lines.compiling())
    while step < total:
      number, first = divmod(step, batches)
      steps = min(max_steps, batches - first, total - step)
      profile.begin_segment(step)
      with jax.transfer_guard('disallow'):
        if block is None or first == 0:
          block = None  # Freed first, because memory has room for one only.
          block = stream.make_block(number, scales)
        put = stream.put
        state, metrics = segments.run(state, block, put(first), put(steps))
      step += steps
      reporter.add(step, metrics, dropped=block.dropped, state=state)
      profile.end_segment(step, wait=reporter.flush)
      stop = should_stop(step)
      if stop or step == total or _is_due(config, step):
        reporter.flush()
        directory.sync_metrics()
        directory.write_status('running', total_steps=total, **vars(counts))
        saved = segments.finish(state)
        saved = padding.strip(saved, job.groups, mesh=mesh)
        checkpointer.save(step, saved, meta=_meta(job, counts, scales))
      if stop and step < total:
        return PREEMPTED
  return DONE


def _make_segments(job: job_lib.Job) -> step_lib.Segments:
  """Returns the functions that train the job's groups; compiles nothing."""
  config = job.config
  return step_lib.make_segments(
      job.groups,
      config.optim,
      total_steps=config.steps,
      batch=config.stream.batch,
      max_steps=config.stream.batches_per_dispatch,
      mesh=job.mesh,
      backend=config.backend,
  )


@contextlib.contextmanager
def _observers(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    counts: progress.Counts,
    watch: Watch,
    skipped: dict[str, np.ndarray],
) -> Iterator[tuple[progress.Reporter, profiling.Profile]]:
  """Yields the reporter and the profile of a run, and closes their files."""
  scalars = None
  if watch.tensorboard and processes.is_main():
    folder = directory.path / 'tensorboard'
    scalars = tensorboard.Scalars(folder, step=counts.step)

  def write(record):
    directory.append_metrics(record)
    if scalars:
      scalars.write(record)

  reporter = progress.Reporter(
      counts,
      job.config,
      job.groups,
      write=write,
      on_progress=watch.on_progress,
      skipped=skipped,
      mesh=job.mesh,
  )
  profile = profiling.Profile(directory.path / 'profile', watch.profile_steps)
  try:
    yield reporter, profile
  finally:
    profile.close()
    if scalars:
      scalars.close()


def _skipped(
    state: suite.TrainState, job: job_lib.Job
) -> dict[str, np.ndarray]:
  """Returns the number of steps that each member has skipped, by group."""
  counters = {name: group.skipped for name, group in state.groups.items()}
  if job.mesh is not None:
    # Replicated, because every process reads the counters of all members.
    replicated = sharding.replicated(job.mesh)
    counters = jax.jit(lambda x: x, out_shardings=replicated)(counters)
  counters = jax.device_get(counters)
  # Padding is left out, as in metrics.
  return {g.name: counters[g.name][: len(g.members)] for g in job.groups}


def _is_due(config: config_lib.TrainConfig, step: int) -> bool:
  """Returns whether a checkpoint is due by `checkpoint.every_blocks`."""
  return step % (config.stream.batches * config.checkpoint.every_blocks) == 0


def _meta(
    job: job_lib.Job, counts: progress.Counts, scales: scales_lib.Scales
) -> dict[str, Any]:
  """Returns the record that a checkpoint stores with the state."""
  block, batch = divmod(counts.step, job.config.stream.batches)
  return {
      **formats.stamp(formats.Kind.CHECKPOINT),
      'config': config_lib.to_record(job.config),
      'counts': dict(vars(counts)),
      'block': block,
      'batch': batch,
      **scales.to_json(),
      'data_digest': job.data_digest,
      'lm_digest': job.lm_digest,
      'lm_dtype': job.lm_dtype,
      'environment': run_dir.environment(),
  }
