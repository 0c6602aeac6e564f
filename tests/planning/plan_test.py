"""Plans: what fits, what would, how long it takes, where the time goes."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jumprelu import errors
from jumprelu.planning import chips, plan, tpu_compile
from jumprelu.training import config


def _config(**changes):
  return config.resolve(
      {
          'recipe': 'paper',
          'model': 'gemma2_2b',
          'layer': 12,
          'sites': ('resid_post',),
          'stream.lm_sequences': 64,
          **changes,
      }
  )


def _plan(topology='v5e:4x4', compiled=None, layers=(), price=None, **changes):
  request = plan.Request(chips.parse(topology), layers, price)
  return plan.make_plan(_config(**changes), request, compiled=compiled)


def test_gemma_scopes_own_131k_step_takes_what_it_took():
  # 45 ms a step on 8 TPUv3 chips (arXiv 2408.05147, section 3.3), which count
  # 12 FLOP a parameter and row where a step without a gradient to its inputs
  # takes 10; the language model had run before.
  found = _plan(
      'v3:4x2', model='gemma2_9b', layer=20, widths=(2**17,),
      **{'mesh.tensor': 8},
  )  # fmt: skip
  (job,) = found['jobs']
  milliseconds = 1e3 * job['seconds_per_step'] * (1 - job['lm_share'])
  assert milliseconds == pytest.approx(45 * 10 / 12 + 2.9, rel=0.03)


def test_a_small_suite_fits_and_needs_no_change():
  found = _plan()
  assert found['fits'] and found['changes'] == []
  assert found['memory']['source'] == 'formula'


def test_what_does_not_fit_names_the_least_change_first():
  found = _plan('v5e:2x2', widths=(2**19,))
  assert not found['fits']
  changes = found['changes']
  assert '--topology=v5e:2x4' in changes
  # The first change really is enough.
  assert all(_fits_with(change) for change in changes if 'topology' in change)


def _fits_with(change):
  return _plan(change.partition('=')[2], widths=(2**19,))['fits']


def test_each_kind_of_change_is_offered_once_with_the_least_that_suffices():
  seven = tuple(f'{k}e-4' for k in range(1, 8))
  found = _plan('v5e:2x2', widths=(2**17,), sparsity_coefficients=seven)
  assert not found['fits']
  fewer, larger = found['changes']
  assert fewer.startswith('5 of the 7 sparsity_coefficients')
  assert larger == '--topology=v5e:2x4'

  def fits(count):
    some = seven[:count]
    return _plan('v5e:2x2', widths=(2**17,), sparsity_coefficients=some)['fits']

  # So says the compiler (`jumprelu plan --compile`): 14.8 and 15.7 GiB, of 15.5.
  assert fits(5) and not fits(6)


def test_time_money_and_jobs_add_up():
  one = _plan(layers=(12,), price=2.0)
  two = _plan(layers=(12, 12), price=2.0)
  assert two['sae_count'] == 2 * one['sae_count'] == 2
  assert two['chip_hours'] == pytest.approx(2 * one['chip_hours'])
  assert two['cost'] == pytest.approx(2.0 * two['chip_hours'])
  (job,) = one['jobs']
  seconds = job['seconds_per_step'] * 976_562
  assert job['days'] == pytest.approx(seconds / 86_400)
  assert one['chip_hours'] == pytest.approx(seconds / 3600 * 16)
  shares = job['lm_share'] + job['sae_share'] + job['link_share']
  assert shares == pytest.approx(1)
  assert _plan()['cost'] is None


def test_the_language_model_costs_as_much_as_so_many_members():
  # At layer 12: 2.13 GFLOP a token; a member of 16K: 0.38.
  (job,) = _plan()['jobs']
  assert job['break_even_members'] == pytest.approx(2.13 / 0.3775, rel=0.01)


def test_lower_layers_are_cheaper():
  low, high = _plan(layers=(0, 25))['jobs']
  assert low['lm_flops_per_token'] * 26 == high['lm_flops_per_token']


def _program(name, gib):
  return tpu_compile.Program(
      name, 0, 0, int(gib * 2**30), 1.0, 1.0, -1.0,
      (tpu_compile.Collective('all-reduce', 'f32[1]', 4),), (),
  )  # fmt: skip


def test_the_compilers_memory_rules_where_there_is_one():
  programs = {name: _program(name, 15.0) for name in ('segment', 'block')}
  found = _plan(compiled=programs)
  assert found['memory']['source'] == 'TPU compiler'
  # The weights lie there while the segment runs.
  assert found['memory']['peak_gib'] > 15.0
  assert not found['fits']
  assert 'none (negative)' in plan.table(found)


def test_a_mesh_that_is_no_slice_is_refused():
  with pytest.raises(errors.UserError, match='16 chips of v5e:4x4'):
    _plan(**{'mesh.tensor': 3})


@pytest.mark.parametrize(
    'text, words', [('v7:2x2', 'v5e'), ('v5e:fast', '4x4'), ('v5e', '4x4')]
)
def test_an_unknown_topology_names_the_known(text, words):
  with pytest.raises(errors.UserError, match=words):
    chips.parse(text)


def test_the_plan_is_json():
  assert json.loads(json.dumps(_plan(), allow_nan=False))['chips'] == 16


def test_the_compiler_is_asked_for_what_the_highest_layer_needs():
  request = plan.Request(chips.parse('v5e:4x4'), (3, 25, 7))
  assert plan.highest(_config(), request).layer == 25


@pytest.mark.parametrize(
    'said',
    [
        'trace\nout of memory\n',
        'trace\njax.errors.JaxRuntimeError: out of memory\nSee the manual\n',
    ],
)
def test_a_refusal_of_the_compiler_is_one_line(monkeypatch, said):
  def refuse(*args, **kwargs):
    del args, kwargs
    return subprocess.CompletedProcess([], 1, '', said)

  monkeypatch.setattr(subprocess, 'run', refuse)
  with pytest.raises(errors.UserError, match='v5e:2x2.*refuses:.*of memory$'):
    tpu_compile.compile_all(_config(), 'v5e:2x2')


def test_planning_imports_no_model_and_no_device(tmp_path):
  script = (
      'import sys, jax\n'
      'def refuse(*a, **k): raise AssertionError("a device was touched")\n'
      'jax.devices = jax.local_devices = jax.default_backend = refuse\n'
      'from jumprelu.run import main\n'
      'code = main.main(["plan", "--recipe=paper", "--model=gemma2_2b",'
      f' "--layers=all", "--out={tmp_path}/plan.json"])\n'
      'heavy = {"gemma", "kauldron", "tensorflow"} & set(sys.modules)\n'
      'assert not heavy, heavy\n'
      'sys.exit(code)\n'
  )
  done = subprocess.run(
      [sys.executable, '-P', '-c', script], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert '26 layer(s)' in done.stdout
  written = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  assert len(written['jobs']) == 26


def test_the_largest_slices_are_known():
  sizes = {
      c.name: chips.Topology(c, c.slices[-1]) for c in chips.CHIPS.values()
  }
  assert sizes['v5e'].chips == 256
  assert sizes['v5e'].larger() is None
  assert chips.parse('v5p:2x2x1').larger().name == 'v5p:2x2x2'
  assert dataclasses.is_dataclass(sizes['v4'])


def test_a_larger_slice_is_offered_with_the_sequences_that_it_needs():
  # 64 rows of chips want a sequence each.
  found = _plan('v5e:2x2', widths=(2**21,), **{'stream.lm_sequences': 16})
  (change,) = [c for c in found['changes'] if c.startswith('--topology')]
  topology, _, sequences = change.partition(' ')
  chips = _plan(topology.partition('=')[2])['chips']
  assert sequences == f'--stream.lm_sequences={chips}' and chips > 16


def test_where_no_one_change_is_enough_the_table_says_so():
  found = _plan('v5e:2x2', widths=(2**26,))
  assert not found['fits'] and not found['changes']
  assert 'no one change' in plan.table(found)
  assert 'no one change' not in plan.table(_plan())
