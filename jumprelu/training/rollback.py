"""Rollbacks: a run whose members all fail continues on other data.

The run goes back to a checkpoint from before the failure, and draws its further
data with another seed. Each rollback has a record, `incidents/NUMBER.json` in
the run directory, from which a resumed run knows its seed.
"""

from jumprelu import errors, processes
from jumprelu.activations import blocks
from jumprelu.training import checkpoint, progress, run_dir, suite
from jumprelu.training import job as job_lib

MAX_ROLLBACKS = 3


def count(directory: run_dir.RunDir, step: int) -> int:
  """Returns the number of rollbacks before a state at `step`.

  All processes call it together.
  """
  return sum(start <= step for start in _starts(directory))


def _starts(directory: run_dir.RunDir) -> list[int]:
  """Returns the step to which each rollback went back; process 0 reads them."""
  return processes.from_main([r['from_step'] for r in directory.incidents()])


def stream_at(job: job_lib.Job, rollbacks: int) -> blocks.Source:
  """Returns the source of blocks after a number of rollbacks.

  Raises:
    NumericalError: the blocks are stored, so that there are no others.
  """
  if not rollbacks:
    return job.stream
  if not hasattr(job.stream, 'reseeded'):
    raise errors.NumericalError(
        f'--store={job.config.store}: all members failed on these blocks, and a'
        ' store has no others; lower --optim.learning_rate'
    )
  return job.stream.reseeded(rollbacks)


def go_back(
    job: job_lib.Job,
    directory: run_dir.RunDir,
    checkpointer: checkpoint.Checkpointer,
    error: progress.StuckError,
) -> str:
  """Removes the checkpoints after a failure began; returns a line about it.

  The next start continues from the newest regular checkpoint before the first
  failing step. Others, which a SIGTERM may have added, are not used, so that an
  interrupted run has the same result.

  Args:
    job: The job.
    directory: The run directory, in which the rollback is recorded.
    checkpointer: The checkpoints of the run.
    error: The reason.

  Raises:
    StuckError: the run has made all rollbacks that it may.
  """
  checkpointer.wait()
  earlier = _starts(directory)
  number = len(earlier) + 1
  if number > MAX_ROLLBACKS or not hasattr(job.stream, 'reseeded'):
    raise error
  batches = job.config.stream.batches
  every = batches * job.config.checkpoint.every_blocks
  regular = [step for step in checkpointer.steps() if step % every == 0]
  if error.first < every:
    regular = [0, *regular]
  before = [step for step in regular if step <= error.first]
  start = max(before) if before else min(checkpointer.steps(), default=0)
  (start,) = processes.from_main([start])
  # The record is last. Without it a run that is killed here fails once more.
  checkpointer.remove_after(start)
  failing = range(error.first, error.first + progress.MAX_STUCK)
  directory.write_incident(
      number,
      {
          'error': str(error),
          'from_step': start,
          # The failing batches, as [block, batch of the block].
          'batches': [list(divmod(step, batches)) for step in failing],
          'seed': job.config.corpus.seed,
          'rollbacks_before': sum(step <= start for step in earlier),
          'members': [
              name for group in job.groups for name in suite.names(group)
          ],
      },
  )
  processes.barrier('incident')
  return (
      f'{error}; going back to step {start:,} and on with other data ({number} of'
      f' {MAX_ROLLBACKS})'
  )
