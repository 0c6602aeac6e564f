"""Metrics of a run have the members' mean thresholds."""

import json

import jax
import numpy as np

from jumprelu.training import suite, thresholds
from tests import toy_run, toy_suite


def _linear(params):
  if 'log_threshold' in params:
    return np.exp(params['log_threshold'])
  return params.get('threshold')


def test_the_last_line_has_the_mean_thresholds_of_the_checkpoint(tmp_path):
  variants = {'variants': ('jumprelu', 'batch_topk', 'topk')}
  toy_run.run(tmp_path, **variants)
  state, _ = toy_run.state(tmp_path, toy_suite.make_config(**variants))
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  logged = json.loads(lines[-1])['groups']
  assert set(logged) == set(state.groups)
  without = []
  for name, group in state.groups.items():
    expected = _linear(group.params)
    if expected is None:
      without.append(name)
      assert 'threshold' not in logged[name]
    else:
      np.testing.assert_allclose(
          logged[name]['threshold'], expected.mean(-1), rtol=1e-6
      )
  assert without == ['resid_post-48-topk', 'transcoder-48-topk']
  assert len(logged) == 6


def test_members_that_only_pad_a_group_are_left_out():
  groups = toy_suite.make_groups(toy_suite.make_config())
  state = suite.init_state(groups)
  padded = jax.tree.map(
      lambda x: np.concatenate([x, x[-1:]]) if np.ndim(x) else x, state
  )
  plain, others = thresholds.make(groups)(state), thresholds.make(groups)(
      padded
  )
  for group in groups:
    if group.name in plain:
      assert plain[group.name].shape == (len(group.members),)
      np.testing.assert_array_equal(plain[group.name], others[group.name])
