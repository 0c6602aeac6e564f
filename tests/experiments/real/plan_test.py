"""The plan counts members, tokens, hours and bytes of the real run's parts."""

import dataclasses

import pytest

from experiments.real import plan, suites
from jumprelu.planning import costs
from jumprelu.run import main
from jumprelu.training import config as config_lib
from jumprelu.training import load_run

_SCALE = suites.gemma3_270m('gemma2_nano', 'stdlib', layer=2)
_RATES = dict.fromkeys(
    ('lm', 'jumprelu', 'topk', 'batch_topk', 'gated', 'relu'), 1e11
)
_FLAGS = ('--model=gemma2_nano', '--data=stdlib', '--layer=2')


def _run(*argv):
  return main.run_command(plan, 'plan', [*_FLAGS, *argv])


def _configs():
  return {
      part.name: config_lib.resolve(part.config)
      for part in suites.parts(_SCALE)
  }


def test_the_headline_has_the_members_that_the_claims_need():
  members = {
      (m.variant, m.width, m.target_l0, m.sparsity_coefficient, m.seed)
      for config in _configs().values()
      if config.tokens == _SCALE.tokens and config.sites == ('resid_post',)
      for m in config_lib.members(config)
  }
  for seed in (0, 1, 2):
    assert ('jumprelu', 16_384, 50, 1, seed) in members
    assert ('topk', 16_384, 50, 0, seed) in members
  assert ('jumprelu', 16_384, 10, 1, 0) in members
  assert ('jumprelu', 16_384, 100, 1, 0) in members
  assert {w for v, w, _, c, _ in members if (v, c) == ('jumprelu', 1e-3)} == {
      2**n for n in range(10, 15)
  }
  assert sum(v == 'jumprelu' and w == 2**14 and c < 1
             for v, w, _, c, _ in members) == 3  # fmt: skip
  for k in (50, 100):
    assert ('batch_topk', 16_384, k, 0, 0) in members
  assert {(v, w) for v, w, *_ in members if v in ('gated', 'relu')} == {
      ('gated', 4096), ('relu', 4096),
  }  # fmt: skip


def test_members_are_trained_once_at_a_number_of_tokens():
  members = [
      (config.tokens, config.sae.jumprelu.gradient_to_pre_acts, member)
      for config in _configs().values()
      for member in config_lib.members(config)
  ]
  assert len(members) == len(set(members))


def test_a_part_reads_only_what_its_store_holds():
  stores = {store.name: store for store in suites.stores(_SCALE)}
  for part in suites.parts(_SCALE):
    config, store = config_lib.resolve(part.config), stores[part.store]
    assert set(config.sites) <= set(store.sites)
    assert config.tokens <= store.tokens


def test_hours_are_operations_over_rates():
  part = {c.name: c for c in plan.costs_of(_SCALE, _RATES)}['jumprelu_seeds']
  config = _configs()['jumprelu_seeds']
  (group,) = load_run.make_suite(config)
  training = 3 * config.tokens * costs.member_flops(group) / 1e11 / 3600
  assert training < part.hours < training + 0.2
  slow = plan.costs_of(_SCALE, {**_RATES, 'jumprelu': 5e10})
  slow = {c.name: c for c in slow}['jumprelu_seeds']
  assert slow.hours - part.hours == pytest.approx(training)


def test_a_store_has_the_bytes_of_its_sites():
  by_name = {c.name: c for c in plan.costs_of(_SCALE, _RATES)}
  # Float32 of 128 dimensions and the mask; the transcoder's sites are two.
  assert by_name['store residual'].bytes == _SCALE.tokens * (4 * 128 + 1)
  sites = by_name['store sites'].bytes / _SCALE.site_tokens - 1
  heads = sites / 4 - 2 * 128
  assert heads == _heads()


def _heads():
  from jumprelu import lm

  return lm.get_config('gemma2_nano').d_site(lm.Site.ATTN_HEADS)


def test_the_table_has_epochs_sums_and_limits(capsys):
  rates = ','.join(f'{name}=100' for name in _RATES)
  assert _run(f'--gflops={rates}', '--unique_tokens=2097152') == 0
  printed = capsys.readouterr().out
  line = next(x for x in printed.splitlines() if x.startswith('half_topk'))
  assert line.split()[:4] == ['half_topk', '1', '2,097,152', '1.0']
  assert 'in all: 46 SAEs' in printed and 'too long' not in printed
  slow = rates.replace('topk=100', 'topk=5')
  assert _run(f'--gflops={slow}') == 0
  printed = capsys.readouterr().out
  assert 'topk_100' in printed and 'over 2 hours' in printed
  assert 'too long: use about --tokens=' in printed


def test_rates_are_measured_and_printed_as_a_flag(capsys, monkeypatch):
  small = dataclasses.replace(
      _SCALE,
      width=64,
      narrow=32,
      ladder=(16,),
      k=(8, 16),
      target_l0=(4, 8, 16),
      seeds_l0=8,
  )
  monkeypatch.setattr(plan.options, 'scale', lambda flag_values: small)
  assert _run() == 0
  first = capsys.readouterr().out.splitlines()[0]
  flag = first.removeprefix('measured: ')
  names = {x.partition('=')[0] for x in flag.partition('=')[2].split(',')}
  assert names == set(_RATES)


@pytest.mark.parametrize('value', ['lm=0', 'lm=x', 'no=5', 'lm=5', 'lm=inf'])
def test_a_wrong_rate_is_one_line(value, capsys):
  assert _run(f'--gflops={value}') == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert '--gflops' in line
