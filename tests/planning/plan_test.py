"""Plans: memory, the changes that would fit, time and its shares, cost."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jumprelu import errors
from jumprelu.planning import chips, plan, plan_table, tpu_compile
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


def test_the_step_time_of_gemma_scopes_131k_sae_is_the_published_one():
  # Published: 45 ms per step on 8 TPUv3 chips without the language model (arXiv
  # 2408.05147, section 3.3). The paper counts 12 FLOP per parameter and row; a
  # step that needs no gradient of its inputs takes 10.
  plan_of_131k = _plan(
      'v3:4x2', model='gemma2_9b', layer=20, widths=(2**17,),
      **{'mesh.tensor': 8},
  )  # fmt: skip
  (job,) = plan_of_131k['jobs']
  milliseconds = 1e3 * job['seconds_per_step'] * (1 - job['lm_share'])
  assert milliseconds == pytest.approx(45 * 10 / 12 + 2.9, rel=0.03)


def test_a_small_suite_fits_and_needs_no_change():
  small = _plan()
  assert small['fits'] and small['changes'] == []
  assert small['memory']['source'] == 'formula'


def test_a_plan_that_does_not_fit_lists_the_smallest_larger_slice():
  too_large = _plan('v5e:2x2', widths=(2**19,))
  assert not too_large['fits']
  changes = too_large['changes']
  assert '--topology=v5e:2x4' in changes
  # The larger slice is enough.
  assert all(_fits_with(change) for change in changes if 'topology' in change)


def _fits_with(change):
  return _plan(change.partition('=')[2], widths=(2**19,))['fits']


def test_each_kind_of_change_is_listed_once_with_the_smallest_that_fits():
  seven = tuple(f'{k}e-4' for k in range(1, 8))
  too_large = _plan('v5e:2x2', widths=(2**17,), sparsity_coefficients=seven)
  assert not too_large['fits']
  fewer, larger = too_large['changes']
  assert fewer.startswith('5 of the 7 sparsity_coefficients')
  assert larger == '--topology=v5e:2x4'

  def fits(count):
    changes = {'widths': (2**17,), 'sparsity_coefficients': seven[:count]}
    return _plan('v5e:2x2', **changes)['fits']

  # The compiler agrees (`jumprelu plan --compile`): 14.8 and 15.7 of 15.5 GiB.
  assert fits(5) and not fits(6)


def test_time_money_and_jobs_add_up():
  single = _plan(layers=(12,), price=2.0)
  double = _plan(layers=(12, 12), price=2.0)
  assert double['sae_count'] == 2 * single['sae_count'] == 2
  assert double['chip_hours'] == pytest.approx(2 * single['chip_hours'])
  assert double['cost'] == pytest.approx(2.0 * double['chip_hours'])
  (job,) = single['jobs']
  seconds = job['seconds_per_step'] * 976_562
  assert job['days'] == pytest.approx(seconds / 86_400)
  assert single['chip_hours'] == pytest.approx(seconds / 3600 * 16)
  shares = job['lm_share'] + job['sae_share'] + job['link_share']
  assert shares == pytest.approx(1)
  assert _plan()['cost'] is None


def test_the_break_even_number_of_members_costs_as_much_as_the_lm():
  # GFLOP per token: 2.13 up to layer 12, and 0.38 for a member of 16K latents.
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


def test_the_compilers_memory_replaces_the_formulas():
  programs = {name: _program(name, 15.0) for name in ('segment', 'block')}
  compiled = _plan(compiled=programs)
  assert compiled['memory']['source'] == 'TPU compiler'
  # The language model's weights stay in memory during the segment.
  assert compiled['memory']['peak_gib'] > 15.0
  assert not compiled['fits']
  assert 'estimate of time unusable' in plan_table.table(compiled)


def test_a_mesh_that_does_not_fill_the_slice_is_refused_with_one_that_does():
  with pytest.raises(
      errors.UserError,
      match=r'mesh\.tensor=3 .* 16 chips of v5e:4x4; use one of 1, 2$',
  ):
    _plan(**{'mesh.tensor': 3})
  with pytest.raises(
      errors.UserError,
      match=r'mesh\.data=4 x mesh\.tensor=2 .* v5e:4x4; use mesh\.data=8,',
  ):
    _plan(**{'mesh.tensor': 2, 'mesh.data': 4})


def test_the_changes_of_a_fixed_data_axis_make_it_automatic():
  too_large = _plan('v5e:2x2', widths=(2**19,), **{'mesh.data': 4})
  words = ' '.join(too_large['changes'])
  assert '--mesh.tensor' in words or '--topology' in words
  for change in too_large['changes']:
    if change.startswith('--mesh') or change.startswith('--topology'):
      assert change.split(' ')[1] == '--mesh.data=0'


def test_the_table_explains_the_break_even_number():
  small = _plan()
  table = plan_table.table(small).partition('\nlayers ')[2]
  header, numbers, *below = table.splitlines()
  assert 'break-even' in header
  assert f'  {small["jobs"][0]["break_even_members"]:.1f}  ' in numbers
  assert 'break-even: the number of SAEs' in ' '.join(below)


@pytest.mark.parametrize(
    'text, words', [('v7:2x2', 'v5e'), ('v5e:fast', '4x4'), ('v5e', '4x4')]
)
def test_an_unknown_topology_is_refused_with_the_known_ones(text, words):
  with pytest.raises(errors.UserError, match=words):
    chips.parse(text)


def test_the_plan_is_json():
  assert json.loads(json.dumps(_plan(), allow_nan=False))['chips'] == 16


def _grouped(size, **changes):
  request = plan.Request(
      chips.parse('v5e:4x4'), (0, 12, 25), layers_per_job=size
  )
  return plan.make_plan(_config(**changes), request)


def test_a_job_of_several_layers_runs_the_language_model_once():
  alone, pairs = _grouped(1), _grouped(2)
  assert [job['layers'] for job in pairs['jobs']] == [[0, 12], [25]]
  (first, middle, last), (both, rest) = alone['jobs'], pairs['jobs']
  assert rest == last
  assert both['lm_flops_per_token'] == middle['lm_flops_per_token']
  flops = first['sae_flops_per_token'] + middle['sae_flops_per_token']
  assert both['sae_flops_per_token'] == pytest.approx(flops)
  # The chip-hours of a job are those of its steps; the SAEs' are the same.
  of_lm = first['lm_share'] * first['seconds_per_step']
  saved = of_lm / first['seconds_per_step'] * first['chip_hours']
  hours = alone['chip_hours'] - pairs['chip_hours']
  assert hours == pytest.approx(saved, rel=1e-6)
  assert pairs['sae_count'] == alone['sae_count']


def test_the_cheapest_grouping_that_fits_is_named():
  made = _grouped(1)
  sizes = [row['layers_per_job'] for row in made['groupings']]
  assert sizes == [1, 2, 3]
  hours = [row['chip_hours'] for row in made['groupings']]
  assert hours == sorted(hours, reverse=True)
  assert hours[1] == pytest.approx(_grouped(2)['chip_hours'])
  assert '--layers_per_job=3 costs least' in plan_table.table(made)


@pytest.mark.parametrize(
    'width, fitting, words',
    [
        (2**16, [1, 2], '--layers_per_job=2 costs least'),
        (2**17, [1], 'One layer a job costs least'),
    ],
)
def test_a_grouping_that_does_not_fit_is_not_advised(width, fitting, words):
  request = plan.Request(chips.parse('v5e:2x2'), (0, 12, 25))
  config = _config(widths=(width,), target_l0=(20, 50, 100))
  made = plan.make_plan(config, request)
  peaks = [row['peak_gib'] for row in made['groupings']]
  assert peaks == sorted(peaks) and len(peaks) == 3
  fits = [r['layers_per_job'] for r in made['groupings'] if r['fits']]
  assert fits == fitting
  assert words in plan_table.table(made)


def test_the_compiled_job_is_the_largest():
  request = plan.Request(chips.parse('v5e:4x4'), (3, 25, 7))
  assert plan.largest_job(_config(), request).layer == 25


@pytest.mark.parametrize(
    'stderr',
    [
        'trace\nout of memory\n',
        'trace\njax.errors.JaxRuntimeError: out of memory\nSee the manual\n',
    ],
)
def test_an_error_of_the_compiler_is_one_line(monkeypatch, stderr):
  def refuse(*args, **kwargs):
    del args, kwargs
    return subprocess.CompletedProcess([], 1, '', stderr)

  monkeypatch.setattr(subprocess, 'run', refuse)
  with pytest.raises(errors.UserError, match='v5e:2x2.*fails:.*of memory$'):
    tpu_compile.compile_all(_config(), 'v5e:2x2')


def test_planning_imports_no_model_and_uses_no_device(tmp_path):
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
  assert '26 jobs' in done.stdout
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


def test_a_larger_slice_is_listed_with_the_sequences_that_it_needs():
  # Each chip along `data` needs at least one sequence.
  too_large = _plan('v5e:2x2', widths=(2**21,), **{'stream.lm_sequences': 16})
  changes = too_large['changes']
  (change,) = [c for c in changes if c.startswith('--topology')]
  topology, _, sequences = change.partition(' ')
  chips = _plan(topology.partition('=')[2])['chips']
  assert sequences == f'--stream.lm_sequences={chips}' and chips > 16


def test_the_table_notes_that_no_single_change_is_enough():
  impossible = _plan('v5e:2x2', widths=(2**26,))
  assert not impossible['fits'] and not impossible['changes']
  assert 'no single change' in plan_table.table(impossible)
  assert 'no single change' not in plan_table.table(_plan())
