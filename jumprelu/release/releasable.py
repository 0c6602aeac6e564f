"""Which runs become releases as they are, and which only where that is asked."""

from collections.abc import Sequence
import os

from absl import logging

from jumprelu import errors
from jumprelu.release import members as members_lib
from jumprelu.training import load_run

# Share of its steps that a member may have skipped.
MAX_SKIPPED = 0.05


def check(
    members: Sequence[load_run.TrainedMember],
    *,
    run: str | os.PathLike[str],
    total_steps: int,
    unfinished: bool = False,
    allow_skipped: bool = False,
) -> None:
  """Refuses a run that has not ended, or a member that skipped many steps.

  Raises:
    UserError: it names the flag that allows a release all the same.
  """
  step = members[0].meta['counts']['step']
  if step < total_steps and not unfinished:
    raise errors.UserError(
        f'{run}: stopped at step {step} of {total_steps}; train it to its end,'
        ' or release it as it is with --unfinished'
    )
  worst = max(members, key=lambda m: m.steps_skipped)
  if worst.steps_skipped > MAX_SKIPPED * step and not allow_skipped:
    raise errors.UserError(
        f'{run}: {_named(worst)} skipped {worst.steps_skipped} of {step} steps,'
        ' because its loss or gradients were not finite; train it with a'
        ' smaller coefficient or learning rate, or release it as it is with'
        ' --allow_skipped'
    )


def warn_of_skipped(members: Sequence[load_run.TrainedMember]) -> None:
  """Logs which members skipped more than a few steps."""
  for member in members:
    steps = member.meta['counts']['step']
    if members_lib.is_skipped_notable(member.steps_skipped, steps=steps):
      logging.warning(
          '%s skipped %d of %d steps, because its loss or gradients were not'
          ' finite; the card says so',
          _named(member),
          member.steps_skipped,
          steps,
      )


def _named(trained_member: load_run.TrainedMember) -> str:
  """Returns what tells a member from the others of its run."""
  member = trained_member.member
  knob = f'sparsity_coefficient={member.sparsity_coefficient:g}'
  if member.target_l0:
    knob = f'target_l0={member.target_l0:g}'
  return (
      f'the member site={member.site} width={member.width}'
      f' variant={member.variant} {knob} seed={member.seed}'
  )
