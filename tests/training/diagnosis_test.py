"""Members that train in vain are diagnosed, and others are not."""

import dataclasses
import math

import pytest

from jumprelu.training import config, diagnosis
from tests import toy_suite

_MEMBER = config.members(toy_suite.make_config())[0]  # 48 latents
_TARGET = dataclasses.replace(_MEMBER, target_l0=10.0)
_SOUND = {'l0': 9.0, 'dead_share': 0.1, 'progress': 0.5, 'is_still': False}


def _faults(member, **changes):
  return dict(diagnosis.diagnose(member, **(_SOUND | changes)))


@pytest.mark.parametrize('member', [_MEMBER, _TARGET])
@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'l0': math.nan},
        # Too early.
        {'l0': 48.0, 'progress': 0.05, 'is_still': True, 'dead_share': 1.0},
        {'l0': 30.0, 'progress': 0.0},
        # The target may still be reached.
        {'l0': 22.0},
    ],
)
def test_a_sound_or_early_member_has_no_diagnosis(member, changes):
  assert not _faults(member, **changes)


@pytest.mark.parametrize(
    'member, changes, fault, cure',
    [
        (_MEMBER, {'l0': 0.2}, 'empty', 'smaller value of --sparsity_coeff'),
        (_TARGET, {'l0': 0.2}, 'empty', 'larger value of --target_l0'),
        (_MEMBER, {'l0': 30.0}, 'full', 'larger value of --sparsity_coeff'),
        (_TARGET, {'l0': 30.0}, 'full', 'smaller value of --target_l0'),
        (_TARGET, {'l0': 22.0, 'progress': 0.8}, 'missed', 'more --tokens'),
        (_TARGET, {'l0': 4.0, 'progress': 0.8}, 'missed', 'more --tokens'),
        (_MEMBER, {'is_still': True}, 'still', 'larger --sae.jumprelu.bandw'),
        (_MEMBER, {'dead_share': 0.95}, 'dead', 'lower --optim.learning_rate'),
    ],
)
def test_a_fault_is_named_with_its_cure(member, changes, fault, cure):
  ((name, text),) = _faults(member, **changes).items()
  assert name == fault
  assert cure in text
