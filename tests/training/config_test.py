"""The training config: recipes, round trip, members and errors."""

import dataclasses
import json

import pytest

from jumprelu import errors, saes
from jumprelu.training import config


def test_the_default_recipe_is_short_and_overridable():
  plain = config.resolve()
  changed = config.resolve({'sae.jumprelu.bandwidth': 0.25})
  assert plain.recipe == 'short'
  assert plain.sae.jumprelu.bandwidth != 0.25
  assert changed.sae.jumprelu.bandwidth == 0.25
  assert changed.optim == plain.optim


def test_the_short_recipe_sets_its_numbers_in_every_variant_that_has_them():
  chosen = config.resolve({'variants': tuple(saes.VARIANTS)}).sae
  numbers = {
      'bandwidth': 0.05,
      'initial_threshold': 0.01,
      'dead_after': 65_536,
      'threshold_decay': 0.99,
  }
  seen = set()
  for variant in saes.VARIANTS:
    fields = dataclasses.asdict(getattr(chosen, variant))
    for name in set(numbers) & set(fields):
      # The bandwidth of this variant comes from a sweep.
      swept = (variant, name) == ('jumprelu', 'bandwidth')
      assert fields[name] == (0.1 if swept else numbers[name]), (variant, name)
      seen.add(name)
  assert seen == set(numbers)


def test_the_paper_recipe_has_gemma_scopes_numbers():
  # arXiv 2408.05147, section 3.
  paper = config.resolve({'recipe': 'paper'})
  assert paper.optim.learning_rate == 7e-5
  assert paper.optim.b2 == 0.999
  assert paper.optim.eps == 1e-8
  assert paper.optim.lr_warmup_steps == 1000
  assert paper.optim.lr_warmup_start == 0.1
  assert paper.optim.lr_decay == 0
  assert paper.optim.sparsity_warmup_steps == 10_000
  assert paper.sae.jumprelu.bandwidth == 0.001
  assert paper.sae.jumprelu.initial_threshold == 0.001
  assert paper.sae.jumprelu.threshold_parameter == 'log'
  assert paper.sae.jumprelu.pre_encoder_bias
  assert paper.sae.jumprelu.kernel == 'rectangle'
  assert not paper.sae.jumprelu.gradient_to_pre_acts
  assert paper.stream.batch == 4096
  assert paper.stream.block_positions == 1_048_576
  assert paper.stream.logical_shards == 256
  assert paper.corpus.sequence_length == 1024
  assert not paper.input_gain
  # The paper's 16K SAEs see 4B tokens: 976,562 steps.
  assert paper.steps == 976_562


def test_the_second_papers_recipe_differs_by_its_published_numbers():
  first = config.resolve({'recipe': 'paper'})
  second = config.resolve({'recipe': 'paper_2', 'model': 'gemma3_1b'})
  assert second.optim == dataclasses.replace(
      first.optim, sparsity_warmup_steps=50_000
  )
  assert second.stream == first.stream and second.corpus == first.corpus
  assert second.input_gain and not first.input_gain
  assert second.variants == ('jumprelu_quadratic',)
  sae, paper = second.sae.jumprelu_quadratic, first.sae.jumprelu
  for name in ('bandwidth', 'initial_threshold', 'kernel', 'pre_encoder_bias'):
    assert getattr(sae, name) == getattr(paper, name), name
  targets = [member.target_l0 for member in config.members(second)]
  assert sorted(set(targets)) == [10, 50, 150]
  other = {'sparsity_coefficients': ('6e-4',), 'variants': ('jumprelu',)}
  changed = config.resolve({'recipe': 'paper_2', **other})
  assert changed.target_l0 == ()


def test_flags_override_the_paper_recipe_too():
  changed = config.resolve({'recipe': 'paper', 'optim.learning_rate': 1e-4})
  assert changed.optim.learning_rate == 1e-4
  assert changed.optim.lr_warmup_steps == 1000


def test_a_warmup_share_wins_over_the_recipes_steps():
  overrides = {'recipe': 'paper', 'optim.lr_warmup_fraction': 0.5}
  assert config.resolve(overrides).optim.lr_warmup_steps is None


@pytest.mark.parametrize(
    'overrides',
    [
        {},
        {'recipe': 'paper', 'tokens': 8_000_000_000},
        {'target_l0': (20.0, 50.0), 'sites': ('mlp_out',)},
        {'optim.learning_rate': 0.1 + 0.2, 'lm_dtype': 'bfloat16'},
    ],
)
def test_json_round_trip_is_exact(overrides):
  resolved = config.resolve(overrides)
  assert config.from_json(config.to_json(resolved)) == resolved


def test_json_with_an_unknown_or_missing_field_names_it():
  data = json.loads(config.to_json(config.resolve()))
  del data['optim']['b2']
  data['stream']['bacth'] = 3
  with pytest.raises(errors.UserError) as caught:
    config.from_json(json.dumps(data), where='runs/a/config.json')
  assert str(caught.value).startswith('runs/a/config.json: ')
  assert "'stream.bacth' (did you mean stream.batch?)" in str(caught.value)
  assert "'optim.b2' is missing" in str(caught.value)


def test_members_come_by_site_width_variant_sparsity_seed():
  resolved = config.resolve(
      {
          'sites': ('mlp_out', 'resid_post'),
          'widths': (32, 16),
          'seeds': (0, 1),
          'sparsity_coefficients': ('mlp_out:2e-3', 'resid_post:1e-3+3e-3'),
          'optim.learning_rate': 0.25,
          'sae.jumprelu.initial_threshold': 0.125,
      }
  )
  rows = [
      (m.site, m.width, m.sparsity_coefficient, m.seed)
      for m in config.members(resolved)
  ]
  assert rows == [
      ('mlp_out', 32, 2e-3, 0),
      ('mlp_out', 32, 2e-3, 1),
      ('mlp_out', 16, 2e-3, 0),
      ('mlp_out', 16, 2e-3, 1),
      ('resid_post', 32, 1e-3, 0),
      ('resid_post', 32, 1e-3, 1),
      ('resid_post', 32, 3e-3, 0),
      ('resid_post', 32, 3e-3, 1),
      ('resid_post', 16, 1e-3, 0),
      ('resid_post', 16, 1e-3, 1),
      ('resid_post', 16, 3e-3, 0),
      ('resid_post', 16, 3e-3, 1),
  ]
  first = config.members(resolved)[0]
  assert (first.learning_rate, first.initial_threshold) == (0.25, 0.125)
  assert (first.variant, first.target_l0) == ('jumprelu', 0.0)


def test_target_l0_replaces_the_recipes_coefficients():
  resolved = config.resolve({'target_l0': (20.0, 50.0), 'sites': ('mlp_out',)})
  assert resolved.sae.jumprelu.penalty == 'target_l0'
  pairs = [
      (m.sparsity_coefficient, m.target_l0) for m in config.members(resolved)
  ]
  assert pairs == [(1.0, 20.0), (1.0, 50.0)]


_BAD = {
    'model': ({'model': 'gemma3'}, 'gemma3'),
    'layer': ({'layer': 99}, 'layer 99 is out of range'),
    'layer below 0': ({'layer': -1}, 'layer -1 is out of range'),
    'site': (
        {'sites': ('resid_pots',)},
        r"sites: 'resid_pots' is unknown \(did you mean resid_post\?\)",
    ),
    'site twice': ({'sites': ('mlp_out', 'mlp_out')}, 'sites holds mlp_out tw'),
    'no site': ({'sites': ()}, 'sites is empty'),
    'width': ({'widths': (0,)}, 'widths: 0 must be at least 1'),
    'width of text': ({'widths': ('1k',)}, "widths: '1k' is not of type int"),
    'variant': ({'variants': ('topk9',)}, "variants: 'topk9' is unknown"),
    'recipe': ({'recipe': 'papr'}, r"'papr' is unknown \(did you mean paper"),
    'seed': ({'seeds': (-1,)}, 'seeds: -1 must be 0'),
    'lambda': (
        {'sparsity_coefficients': ('-1e-3',)},
        '-1e-3 in .* must be finite and not negative',
    ),
    'lambda of another site': (
        {'sparsity_coefficients': ('mlp_uot:1e-3', '1e-3')},
        r"site 'mlp_uot' is not among the sites \(did you mean mlp_out",
    ),
    'lambda of another variant': (
        {'sparsity_coefficients': ('gated@mlp_out:1e-3', '1e-3')},
        "variant 'gated' is not among the variants",
    ),
    'site without lambda': (
        {'sparsity_coefficients': ('mlp_out:1e-3',)},
        'none for jumprelu at resid_post',
    ),
    'both': (
        {'sparsity_coefficients': ('1e-3',), 'target_l0': (20.0,)},
        'exclude each other',
    ),
    'target': ({'target_l0': (0.0,)}, r'target_l0: 0.0 must be above 0'),
    'target above width': (
        {'target_l0': (20.0,), 'widths': (16,)},
        'target_l0: 20 is larger than width 16',
    ),
    'penalty': (
        {'sae.jumprelu.penalty': 'target_l0'},
        'penalty is target_l0, but target_l0 is not set',
    ),
    'short run': (
        {'tokens': 1000},
        r'tokens is 1000: use 65_536 or more \(one block\), or a smaller'
        ' --stream.block_positions',
    ),
    'long run': (
        {'tokens': 10**40},
        r'tokens: use at most 549_755_813_632, which are 2\*\*31 - 1 steps of 256',
    ),
    'part': ({'optim.learning_rate': -1.0}, 'optim.learning_rate must be'),
    'geometry': ({'stream.batch': 1000}, 'stream.batch=1000 is not a multiple'),
    'lengths': (
        {'corpus.sequence_length': 300},
        'stream.block_positions=65536 is not a multiple',
    ),
    'unknown': ({'optim.lr': 1.0}, "unknown field 'optim.lr'"),
    'data': ({'data': ''}, 'data is empty'),
}


@pytest.mark.parametrize('overrides, message', _BAD.values(), ids=_BAD)
def test_bad_input_is_named(overrides, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    config.resolve(overrides)
  assert caught.value.exit_code == 2


def test_all_problems_come_in_one_message():
  with pytest.raises(errors.UserError) as caught:
    config.resolve(
        {
            'layer': 99,
            'sites': ('nowhere',),
            'widths': (-4,),
            'optim.b2': 2.0,
            'stream.batch': 0,
            'mesh.tensor': 0,
            'recipe': 'none',
        }
    )
  text = str(caught.value)
  for part in (
      'layer 99',
      "'nowhere'",
      'widths: -4',
      'optim.b2',
      'stream.batch',
      'mesh.tensor',
      "recipe: 'none'",
  ):
    assert part in text


def test_a_flag_of_a_variant_not_chosen_is_an_error():
  flags = {'variants': ('jumprelu',), 'sae.gated.tied': False}
  with pytest.raises(
      errors.UserError,
      match='sae.gated.tied is set, but gated is not among the variants',
  ):
    config.resolve(flags)
  both = config.resolve(flags | {'variants': ('jumprelu', 'gated')})
  assert not both.sae.gated.tied


def test_auto_dtype_depends_on_the_platform_alone():
  auto = config.resolve()
  assert config.dtype_on(auto.lm_dtype, 'cpu') == 'float32'
  assert config.dtype_on(auto.lm_dtype, 'tpu') == 'bfloat16'
  fixed = config.resolve({'lm_dtype': 'float32'})
  assert config.dtype_on(fixed.lm_dtype, 'tpu') == 'float32'


def test_the_members_of_several_layers_are_those_of_each():
  several = config.members(config.resolve({'layers': (3, 0)}))
  each = [config.members(config.resolve({'layer': n})) for n in (3, 0)]
  assert several == each[0] + each[1]


def test_a_list_of_one_layer_is_that_layer():
  assert config.resolve({'layers': (1,)}) == config.resolve({'layer': 1})


@pytest.mark.parametrize(
    'layers, words',
    [
        ((1, 99), 'layer 99 is out of range'),
        ((0, -1), 'layer -1 is out of range'),
        ((2, 2), 'layers holds 2 twice'),
    ],
)
def test_wrong_layers_are_named(layers, words):
  with pytest.raises(errors.UserError, match=words):
    config.resolve({'layers': layers})


def test_layer_and_layers_exclude_each_other():
  with pytest.raises(errors.UserError, match='exclude each other'):
    config.resolve({'layers': (1, 2), 'layer': 1})
