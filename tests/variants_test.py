"""All variants in one suite: resumed, sharded, trained alone, and released."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from jumprelu import saes
from jumprelu.release import members
from jumprelu.run import main
from jumprelu.training import checkpoint, load_run, run_dir, suite, train
from tests import local_processes, small_run, toy_suite

pytestmark = pytest.mark.slow

_CHANGES = {
    'sites': ('resid_post',),
    'sparsity_coefficients': ('1e-2',),
    # Some latents of TopK are dead after a batch.
    'sae__topk__k': (2.0, 4.0),
    'sae__topk__dead_after': 30,
    'sae__batch_topk__k': (4.0,),
    'sae__matryoshka_topk__k': (4.0,),
    # Untied, to cover the second encoder; its nested form has only one.
    'sae__gated__tied': False,
    # A larger k than above, because the gradient of a latent that is alone on
    # its rows is only rounding error at the tied start, which Adam scales to a
    # step.
    'sae__matryoshka_batch_topk__k': (8.0,),
    'sae__jumprelu_quadratic__aims': (4.0,),
    'tokens': 128 * 2,  # 8 steps.
}


def _run(out, *, stop=(), mesh=None, variants=tuple(saes.VARIANTS)):
  """Trains a suite; returns {variant: parameters}, or None if it is stopped."""
  unchosen = tuple(f'sae__{v}__' for v in saes.VARIANTS if v not in variants)
  changes = {k: v for k, v in _CHANGES.items() if not k.startswith(unchosen)}
  config = toy_suite.make_config(**changes, variants=variants)
  directory = run_dir.RunDir(out)
  job = toy_suite.make_job(config, mesh=mesh)
  with directory.claim(config):
    outcome = train.run(
        job,
        directory,
        should_stop=lambda step: step in stop,
        watch=train.QUIET,
    )
  assert outcome == (train.PREEMPTED if stop else train.DONE)
  if stop:
    return None
  groups = toy_suite.make_groups(config)
  start = jax.device_get(suite.init_state(groups)).groups
  parameters = {}
  path = directory.checkpoints
  with checkpoint.Checkpointer(path, config.checkpoint) as checkpointer:
    state, _ = checkpointer.latest_verified(suite.stored_state(groups))
  for group in groups:
    params = jax.device_get(state.groups[group.name].params)
    for name, value in params.items():
      moved = not np.array_equal(value, start[group.name].params[name])
      assert moved == (name != 'k'), (group.name, name)
    parameters[group.sae.variant] = params
  return parameters


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  return _run(tmp_path_factory.mktemp('runs') / 'whole')


def _close(params, expected):
  for name, value in expected.items():
    np.testing.assert_allclose(
        params[name], value, rtol=0, atol=1e-5 * np.abs(value).max(),
        err_msg=name,
    )  # fmt: skip


def test_every_variant_resumes_with_the_same_bits(tmp_path, whole):
  _run(tmp_path, stop=(3,))
  again = _run(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, again, whole)


_ROOT = pathlib.Path(__file__).resolve().parent.parent
# As in conftest.py, the installed package is tested, not the working tree.
_SPREAD = f"""
import pickle, sys
sys.path.append({str(_ROOT)!r})
from tests import toy_suite, variants_test
out, *variants = sys.argv[1:]
mesh = toy_suite.make_mesh(2, 4)
parameters = variants_test._run(out, mesh=mesh, variants=tuple(variants))
with open(out + '/parameters.pickle', 'wb') as file:
  pickle.dump(parameters, file)
"""


def _run_spread(out, variants):
  """Returns {variant: parameters} after a run on eight devices.

  The run has a process of its own.
  """
  # Each device waits for the others in a thread, and XLA has as many threads as
  # cores, or NPROC. With few threads, independent collectives of several
  # variants would occupy all of them and wait for ever.
  subprocess.run(
      [sys.executable, '-P', '-c', _SPREAD, str(out), *variants],
      env={**os.environ, 'NPROC': '64'},
      check=True,
      timeout=900,
  )
  return pickle.loads((out / 'parameters.pickle').read_bytes())


@pytest.mark.parametrize('third', [0, 1, 2])
def test_every_variant_is_the_same_on_eight_devices(third, tmp_path, whole):
  first, *others = saes.VARIANTS
  variants = (first, *others[third::3])
  spread = _run_spread(tmp_path, variants)
  assert set(spread) == set(variants)
  for variant, params in spread.items():
    _close(params, whole[variant])


@pytest.mark.parametrize('variant', ['topk', 'matryoshka_batch_topk'])
def test_a_variant_is_the_same_in_a_suite_and_alone(variant, tmp_path, whole):
  alone = _run(tmp_path, variants=('jumprelu', variant))
  _close(alone[variant], whole[variant])


def test_a_real_run_of_all_variants_is_released_in_both_ways(tmp_path):
  run = tmp_path / 'run'
  overrides = small_run.overrides(tmp_path, steps=8) | {
      'sites': ('resid_post',),
      'variants': tuple(saes.VARIANTS),
      'sparsity_coefficients': ('1e-3',),
      'sae.topk.k': (8,),
      'sae.gated.tied': False,
      'eval.tokens': 2048,
      'eval.delta_loss_tokens': 512,
      'eval.pca_tokens': 2048,
      'eval.lm_sequences': 8,
  }
  local_processes.finish(small_run.command(run, overrides))
  native, plain = tmp_path / 'native', tmp_path / 'plain'
  command = ('release', f'--run={run}')
  local_processes.jumprelu(*command, f'--out={native}')
  local_processes.jumprelu(*command, f'--out={plain}', '--as_jumprelu')
  for out in (native, plain):
    assert main.main(['verify', str(out)]) == 0
  released = {
      members.load_member(native / path)[0].variant
      for path in members.list_members(native)
  }
  assert released == set(saes.VARIANTS)
  origins, kept = set(), set()
  for path in members.list_members(plain):
    sae, params, config = members.load_member(plain / path)
    origins.add(config['converted_from'] or sae.variant)
    if sae.variant != 'jumprelu':
      kept.add(sae.variant)
      assert sae.to_jumprelu(params) is None
  assert origins == set(saes.VARIANTS)
  assert {'topk', 'gated'} <= kept
  assert not {'matryoshka_gated', 'batch_topk', 'relu_rescaled'} & kept
  rows = [json.loads(s) for s in (native / 'results.jsonl').open()]
  assert {row['variant'] for row in rows} == set(saes.VARIANTS)
  assert {m.sae.variant for m in load_run.load_suite(run)} == set(saes.VARIANTS)
