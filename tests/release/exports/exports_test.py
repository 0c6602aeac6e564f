"""Exports are read again with equal latents, or refused by name."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from jumprelu import errors, saes
from jumprelu.release import formats
from tests.release.exports import small

VARIANTS = list(saes.VARIANTS)
TOPK = ('topk', 'matryoshka_topk')
HELD = [
    ('saelens', VARIANTS),
    ('dictionary_learning', VARIANTS),
    ('gemma_scope', [v for v in VARIANTS if v not in TOPK]),
    ('gemma_scope_2', [v for v in VARIANTS if v not in TOPK]),
]


@pytest.mark.parametrize(
    'to, variant', [(to, variant) for to, held in HELD for variant in held]
)
def test_an_sae_is_read_again_with_equal_latents(tmp_path, to, variant):
  source = small.make(variant)
  small.export([source], tmp_path / 'out', to=to)
  released = small.only(tmp_path / 'out')
  small.check_equal(released, source.released)
  model = None if to == 'gemma_scope_2' else 'gemma2_2b'
  assert released.origin == small.ORIGIN._replace(model=model)


@pytest.mark.parametrize('variant, skip', small.TRANSCODERS)
@pytest.mark.parametrize('origin', [small.TRANSCODER, small.WITH_GAIN])
@pytest.mark.parametrize(
    'to', ['saelens', 'circuit_tracer', 'gemma_scope', 'gemma_scope_2']
)
def test_a_transcoder_is_read_again_with_equal_latents(
    tmp_path, to, origin, variant, skip
):
  source = small.make(variant, origin=origin, skip=skip)
  if to == 'gemma_scope' and (skip or origin.input_gain):
    reason = 'skip term' if skip else 'with its gain'
  elif to == 'gemma_scope_2' and not origin.input_gain:
    reason = 'without its gain'
  else:
    small.export([source], tmp_path / 'out', to=to)
    released = small.only(tmp_path / 'out')
    small.check_equal(released, source.released)
    assert released.origin == origin
    return
  with pytest.raises(errors.UserError, match=f'--to={to}: a: .*{reason}'):
    small.export([source], tmp_path / 'out', to=to)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'to, source, reason',
    [
        ('saelens', small.make('gated', tied=False), 'equals no JumpReLU SAE'),
        ('gemma_scope', small.make('topk'), 'equals no JumpReLU SAE'),
        ('gemma_scope_2', small.make('topk'), 'equals no JumpReLU SAE'),
        ('circuit_tracer', small.make(), 'no transcoder'),
        (
            'circuit_tracer',
            small.make(origin=small.TRANSCODER, d_out=6),
            '8 inputs and 6 outputs',
        ),
        (
            'dictionary_learning',
            small.make(origin=small.TRANSCODER),
            'has no transcoders',
        ),
        (
            'saelens',
            small.make('topk', origin=small.TRANSCODER),
            'no TopK transcoders',
        ),
    ],
)
def test_an_sae_that_a_format_cannot_hold_is_refused_by_name(
    tmp_path, to, source, reason
):
  origin = small.ORIGIN
  if to == 'circuit_tracer':
    origin = small.TRANSCODER._replace(layer=0)
  held = small.make(path='b', origin=origin)
  with pytest.raises(errors.UserError, match=f'--to={to}: a: .*{reason}') as e:
    small.export([held, source], tmp_path / 'out', to=to)
  assert '\n' not in str(e.value)
  assert not list(tmp_path.iterdir())


def test_negative_thresholds_are_refused(tmp_path):
  source = small.make()
  source.released.params['threshold'] = np.linspace(-1, 1, 12)
  with pytest.raises(errors.UserError, match='negative latents'):
    small.export([source], tmp_path / 'out', to='saelens')


def test_fields_of_cfg_json_are_explicit(tmp_path):
  warnings = small.export([small.make()], tmp_path / 'out', to='saelens')
  assert not warnings
  config = json.loads((tmp_path / 'out/a/cfg.json').read_text())
  metadata = config.pop('metadata')
  assert config == {
      'architecture': 'jumprelu',
      'd_in': 8,
      'd_sae': 12,
      'dtype': 'float32',
      'device': 'cpu',
      'apply_b_dec_to_input': False,
      'normalize_activations': 'none',
      'reshape_activations': 'none',
  }
  assert metadata['sae_lens_version'].startswith('6.')
  assert metadata['model_name'] == 'gemma-2-2b'
  assert metadata['hook_name'] == 'blocks.3.hook_resid_post'
  assert metadata['hf_hook_name'] == 'model.layers.3.output'
  assert metadata['jumprelu']['sparsity_coefficient'] == 1e-3
  stored = safetensors.load_file(tmp_path / 'out/a/sparsity.safetensors')
  np.testing.assert_allclose(
      10 ** stored['sparsity'][1:], np.linspace(0, 1, 12)[1:], rtol=1e-5
  )
  assert stored['sparsity'][0] == -10


@pytest.mark.parametrize(
    'source, architecture, tensors',
    [
        (small.make('relu'), 'standard', []),
        (small.make('gated'), 'gated', ['b_gate', 'b_mag', 'r_mag']),
        (small.make('topk'), 'topk', []),
        (small.make('matryoshka_topk'), 'topk', []),
        (small.make('batch_topk'), 'jumprelu', ['threshold']),
        (
            small.make('relu', origin=small.TRANSCODER, skip=True),
            'skip_transcoder',
            ['W_skip'],
        ),
        (
            small.make('gated', origin=small.WITH_GAIN),
            'jumprelu_transcoder',
            ['threshold'],
        ),
    ],
)
def test_saelens_architectures_and_their_tensors(
    tmp_path, source, architecture, tensors
):
  small.export([source], tmp_path / 'out', to='saelens')
  config = json.loads((tmp_path / 'out/a/cfg.json').read_text())
  assert config['architecture'] == architecture
  stored = safetensors.load_file(tmp_path / 'out/a/sae_weights.safetensors')
  plain = {'W_enc', 'W_dec', 'b_dec'} | (
      set() if architecture == 'gated' else {'b_enc'}
  )
  assert set(stored) == plain | set(tensors)


def test_attention_heads_are_flattened_by_saelens(tmp_path):
  origin = small.ORIGIN._replace(site='attn_heads')
  small.export([small.make(origin=origin)], tmp_path / 'out', to='saelens')
  config = json.loads((tmp_path / 'out/a/cfg.json').read_text())
  assert config['reshape_activations'] == 'hook_z'
  assert config['metadata']['hook_name'] == 'blocks.3.attn.hook_z'
  assert small.only(tmp_path / 'out').origin == origin


def test_the_set_of_circuit_tracer_names_its_hooks_and_missing_layers(tmp_path):
  for name, origin, hook in (
      ('without', small.TRANSCODER, 'ln2.hook_normalized'),
      ('with', small.WITH_GAIN, 'mlp.hook_in'),
  ):
    warnings = small.export(
        [small.make(origin=origin)], tmp_path / name, to='circuit_tracer'
    )
    text = (tmp_path / name / 'config.yaml').read_text()
    assert f'feature_input_hook: "{hook}"\n' in text
    assert 'feature_output_hook: "hook_mlp_out"\n' in text
    assert any('has layers 3' in warning for warning in warnings)
  layers = [
      small.make(origin=small.TRANSCODER._replace(layer=n), path=f'l{n}')
      for n in (0, 1)
  ]
  assert not small.export(layers, tmp_path / 'whole', to='circuit_tracer')
  read = formats.find(tmp_path / 'whole')
  assert list(read) == ['layer_0', 'layer_1']
  assert read['layer_1'].origin.layer == 1


def test_two_transcoders_of_a_layer_make_no_set(tmp_path):
  sources = [small.make(origin=small.TRANSCODER, path=p) for p in ('a', 'b')]
  with pytest.raises(errors.UserError, match='a and b are both of layer 3'):
    small.export(sources, tmp_path / 'out', to='circuit_tracer')
  mixed = [
      small.make(origin=small.TRANSCODER),
      small.make(origin=small.WITH_GAIN._replace(layer=4), path='b'),
  ]
  with pytest.raises(errors.UserError, match='b: reads another hook than a'):
    small.export(mixed, tmp_path / 'out', to='circuit_tracer')


def test_gemma_scope_warns_of_models_and_widths_that_readers_do_not_know(
    tmp_path,
):
  warnings = small.export([small.make()], tmp_path / 'a', to='gemma_scope')
  (file,) = (tmp_path / 'a').rglob('params.npz')
  assert file.relative_to(tmp_path / 'a').as_posix() == (
      'gemma-scope-2b-pt-res/layer_3/width_12/average_l0_3/params.npz'
  )
  assert len(warnings) == 1 and 'width 12 is unknown' in warnings[0]
  nano = small.make(origin=small.ORIGIN._replace(model='gemma2_nano'))
  warnings = small.export([nano], tmp_path / 'b', to='gemma_scope')
  assert any('not a model of Gemma Scope' in warning for warning in warnings)


def test_saes_of_equal_l0_get_folders_of_their_own(tmp_path):
  sources = [small.make(path='a'), small.make('relu', path='b')]
  small.export(sources, tmp_path / 'out', to='gemma_scope')
  read = formats.find(tmp_path / 'out')
  assert [path.rpartition('/')[2] for path in read] == [
      'average_l0_3', 'average_l0_3_2',
  ]  # fmt: skip
  with pytest.raises(errors.UserError, match='b: another SAE has the same'):
    small.export(sources, tmp_path / 'out_2', to='gemma_scope_2')


def test_an_output_that_is_not_empty_is_kept(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'notes').touch()
  with pytest.raises(errors.UserError, match='not an empty folder'):
    small.export([small.make()], tmp_path / 'out', to='saelens')
  assert [p.name for p in (tmp_path / 'out').iterdir()] == ['notes']
