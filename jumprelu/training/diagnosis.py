"""Diagnoses of members that train in vain, in plain words.

The numbers are those of one segment after the warm-up of the sparsity
coefficient, because before it L0 is that of the initial SAE.
"""

from collections.abc import Iterator
import math

from jumprelu.training import suite

# The share of a run before which no diagnosis is made.
_EARLY = 0.1
# From this share of the width on, an L0 is hardly one of a sparse SAE.
_FULL = 0.5
# An SAE with a smaller L0 reconstructs little more than the mean.
_EMPTY = 0.5
_DEAD = 0.9
# The largest ratio of L0 and target in the last quarter of a run.
_MISSED = 2.0


def diagnose(
    member: suite.Member,
    *,
    l0: float,
    dead_share: float,
    progress: float,
    is_still: bool,
) -> Iterator[tuple[str, str]]:
  """Yields the name of each fault of a member, and a text with its cure.

  Args:
    member: The member.
    l0: Its mean L0.
    dead_share: The share of its latents that have not fired for long.
    progress: The share of the run that is over, up to 1.
    is_still: Whether its thresholds have not changed since the last report.
  """
  knob = '--target_l0' if member.target_l0 else '--sparsity_coefficients'
  if not math.isfinite(l0) or progress < _EARLY:
    return
  if l0 < _EMPTY:
    yield 'empty', (
        f'L0 is {l0:.2g}: hardly any latent fires; use a'
        f' {"larger" if member.target_l0 else "smaller"} value of {knob}'
    )
  elif l0 > _FULL * member.width:
    yield 'full', (
        f'L0 is {l0:.0f} of {member.width} latents: the penalty has no effect;'
        f' use a {"smaller" if member.target_l0 else "larger"} value of {knob}'
    )
  elif member.target_l0 and progress > 0.75:
    ratio = max(l0 / member.target_l0, member.target_l0 / l0)
    if ratio > _MISSED:
      yield 'missed', (
          f'L0 is {l0:.3g} and its target {member.target_l0:g}; use more'
          ' --tokens, or a higher --optim.learning_rate'
      )
  if is_still:
    yield 'still', (
        'its thresholds do not move, because no pre-activation is within their'
        f' kernel; use a larger --sae.{member.variant}.bandwidth'
    )
  if dead_share > _DEAD:
    yield 'dead', (
        f'{dead_share:.0%} of its latents are dead; use a lower'
        ' --optim.learning_rate, or the recipe scaled'
    )
