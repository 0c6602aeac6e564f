"""Checks whether a run may be released, and which flags it needs."""

from collections.abc import Sequence
import os

from absl import logging

from jumprelu import errors
from jumprelu.release import members as members_lib
from jumprelu.training import load_run

# A member may be released without a flag up to this share of skipped steps.
MAX_SKIPPED = 0.05


def check(
    members: Sequence[load_run.TrainedMember],
    *,
    run: str | os.PathLike[str],
    total_steps: int,
    unfinished: bool = False,
    allow_skipped: bool = False,
) -> None:
  """Refuses an unfinished run, and a run with a member that skipped many steps.

  Args:
    members: The run's members.
    run: The run directory, for error messages.
    total_steps: The number of steps that the run was to train for.
    unfinished: Whether an unfinished run is allowed.
    allow_skipped: Whether any share of skipped steps is allowed.

  Raises:
    UserError: the run is refused; the message names the flag that allows it.
  """
  step = min(m.meta['counts']['step'] for m in members)
  if step < total_steps and not unfinished:
    raise errors.UserError(
        f'{run}: stopped at step {step} of {total_steps}; finish its training,'
        ' or release it anyway with --unfinished'
    )
  worst = max(members, key=lambda m: m.steps_skipped)
  if worst.steps_skipped > MAX_SKIPPED * step and not allow_skipped:
    raise errors.UserError(
        f'{run}: {_name(worst)} skipped {worst.steps_skipped} of {step} steps,'
        ' because its loss or gradients were not finite; train it with a'
        ' smaller coefficient or learning rate, or release it anyway with'
        ' --allow_skipped'
    )


def warn_of_skipped(members: Sequence[load_run.TrainedMember]) -> None:
  """Logs a warning for each member whose skipped steps the card mentions."""
  for member in members:
    steps = member.meta['counts']['step']
    if members_lib.is_skipped_notable(member.steps_skipped, steps=steps):
      logging.warning(
          '%s skipped %d of %d steps, because its loss or gradients were not'
          ' finite; the card will mention it',
          _name(member),
          member.steps_skipped,
          steps,
      )


def _name(trained_member: load_run.TrainedMember) -> str:
  """Returns the settings that identify a member within its run."""
  member = trained_member.member
  knob = f'sparsity_coefficient={member.sparsity_coefficient:g}'
  if member.target_l0:
    knob = f'target_l0={member.target_l0:g}'
  return (
      f'the member site={member.site} width={member.width}'
      f' variant={member.variant} {knob} seed={member.seed}'
  )
