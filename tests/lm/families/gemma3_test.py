"""Gemma 3: sizes, both generations of configs, and the parts that are unread."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors import numpy as safetensors

from jumprelu import errors, lm
from jumprelu.data import packing
from jumprelu.lm import families, gemma, weights
from jumprelu.lm.families import gemma3_fields
from tests.lm import huggingface_folders as folders

MODELS = [m for m in lm.FAMILIES['gemma3'].models if not m.name.endswith('_it')]
# Parameters without those for images, by the formula
# V D + L (2 D h H + 2 D kv H + 3 D F + 4 D + 2 H) + D.
PARAMETERS = {
    'gemma3_270m': 268_098_176,
    'gemma3_1b': 999_885_952,
    'gemma3_4b': 3_880_099_328,
    'gemma3_12b': 11_765_788_416,
    'gemma3_27b': 27_009_002_240,
}
SMALL = folders.GEMMA3_CONFIGS['gemma3_270m']
NESTED = folders.GEMMA3_CONFIGS['gemma3_4b']
NEWER = folders.GEMMA3_CONFIGS['gemma3_27b']


@pytest.fixture(scope='module')
def package():
  """Returns the gemma package, in which the released models can be imported."""
  from gemma import gm
  from kauldron import kd

  with pytest.MonkeyPatch.context() as patch:
    # The pinned version of kauldron has another name for this class.
    patch.setattr(
        kd.ckpts, 'AbstractPartialLoader', kd.ckpts.InitTransform, raising=False
    )
    yield gm


@pytest.mark.parametrize('config', MODELS, ids=lambda config: config.name)
def test_sizes_equal_those_of_the_package(package, config):
  name = config.name.removeprefix('gemma3_').upper()
  theirs = getattr(package.nn, f'Gemma3_{name}').config
  ours = gemma.make_module(config).config
  for field in dataclasses.fields(theirs):
    if field.name == 'vision_encoder':
      continue
    actual, wanted = (getattr(c, field.name) for c in (ours, theirs))
    assert actual == wanted, field.name
  assert ours.query_pre_attn_scalar() == theirs.query_pre_attn_scalar()
  leaves = jax.tree.leaves(gemma.param_shapes(config))
  assert sum(leaf.size for leaf in leaves) == PARAMETERS[config.name]


def test_instruction_tuned_models_have_the_shapes_of_pre_trained_ones():
  for config in MODELS:
    tuned = lm.get_config(f'{config.name}_it')
    assert tuned == dataclasses.replace(config, name=tuned.name)


@pytest.mark.parametrize(
    'name, ours',
    [
        ('google/gemma-3-1b-pt', 'gemma3_1b'),
        ('gemma-3-270m', 'gemma3_270m'),
        ('google/gemma-3-27b-it', 'gemma3_27b_it'),
        ('google/gemma-3n-E4B', None),
        ('google/gemma-2-2b', None),
    ],
)
def test_names_of_other_libraries_are_known(name, ours):
  assert lm.FAMILIES['gemma3'].model_name(name) == ours


def write_config(folder, config):
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  return str(folder)


# The fields of the first uploads, which omit the defaults of transformers.
HUB_4B = {
    'architectures': ['Gemma3ForConditionalGeneration'],
    'model_type': 'gemma3',
    'boi_token_index': 255999,
    'eoi_token_index': 256000,
    'image_token_index': 262144,
    'initializer_range': 0.02,
    'mm_tokens_per_image': 256,
    'torch_dtype': 'bfloat16',
    'transformers_version': '4.50.0.dev0',
    'vision_config': {'hidden_size': 1152, 'model_type': 'siglip_vision_model'},
    'text_config': {
        'hidden_size': 2560,
        'intermediate_size': 10240,
        'model_type': 'gemma3_text',
        'num_hidden_layers': 34,
        'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
        'sliding_window': 1024,
    },
}
HUB_1B = {
    'architectures': ['Gemma3ForCausalLM'],
    'model_type': 'gemma3_text',
    'attention_bias': False,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'head_dim': 256,
    'hidden_activation': 'gelu_pytorch_tanh',
    'hidden_size': 1152,
    'intermediate_size': 6912,
    'max_position_embeddings': 32768,
    'num_attention_heads': 4,
    'num_hidden_layers': 26,
    'num_key_value_heads': 1,
    'query_pre_attn_scalar': 256,
    'rms_norm_eps': 1e-6,
    'rope_local_base_freq': 10000,
    'rope_scaling': None,
    'rope_theta': 1000000,
    'sliding_window': 512,
    'sliding_window_pattern': 6,
    'vocab_size': 262144,
}
KINDS = ['sliding_attention'] * 5 + ['full_attention']
NEW_27B = {
    'model_type': 'gemma3',
    'vision_config': None,
    'text_config': {
        'model_type': 'gemma3_text',
        'hidden_size': 5376,
        'intermediate_size': 21504,
        'num_hidden_layers': 62,
        'num_attention_heads': 32,
        'num_key_value_heads': 16,
        'head_dim': 128,
        'query_pre_attn_scalar': 168,
        'sliding_window': 1024,
        'layer_types': [KINDS[i % 6] for i in range(62)],
        'rope_parameters': {
            'full_attention': {
                'rope_type': 'linear',
                'factor': 8.0,
                'rope_theta': 1000000.0,
            },
            'sliding_attention': {
                'rope_type': 'default',
                'rope_theta': 10000.0,
            },
        },
    },
}


@pytest.mark.parametrize(
    'name, fields',
    [('gemma3_1b', HUB_1B), ('gemma3_4b', HUB_4B), ('gemma3_27b', NEW_27B)],
)
def test_published_configs_are_the_known_models(tmp_path, name, fields):
  config = lm.get_config(write_config(tmp_path / name, fields))
  assert config == lm.get_config(name)


@pytest.mark.parametrize(
    'fields, message',
    [
        (
            {'use_bidirectional_attention': True},
            'use_bidirectional_attention is True, as in EmbeddingGemma',
        ),
        ({'final_logit_softcapping': 30.0}, 'final_logit_softcapping is 30.0'),
        ({'sliding_window': None}, 'sliding_window is None'),
        ({'query_pre_attn_scalar': 7}, 'query_pre_attn_scalar is 7, wanted'),
        ({'layer_types': KINDS}, 'layer_types must list 4 layers'),
        ({'layer_types': ['x'] * 4}, 'layer_types must list 4 layers'),
        ({'sliding_window_pattern': 0}, 'sliding_window_pattern is 0'),
        ({'rope_theta': 'x'}, "rope_theta is 'x', wanted a whole number"),
        ({'rope_local_base_freq': 0.5}, 'rope_theta is 0.5, wanted a whole'),
        ({'rope_theta': 10**400}, 'rope_theta is 1000'),
        ({'rope_scaling': 8}, 'rope_scaling is 8, wanted an object'),
        (
            {'rope_scaling': {'rope_type': 'yarn', 'factor': 8.0}},
            "rope_scaling.rope_type is 'yarn', wanted 'default' or 'linear'",
        ),
        (
            {'rope_scaling': {'rope_type': 'linear', 'factor': 10**400}},
            'rope_scaling.factor is 1000',
        ),
        (
            {'rope_scaling': {'rope_type': 'linear', 'factor': -1}},
            'rope_scaling.factor is -1, wanted at least 1',
        ),
        (
            {'rope_parameters': {'rope_type': 'default'}},
            "rope_parameters.rope_type .'default'. is unknown in Gemma 3",
        ),
        ({'mup_scale': 2}, r'mup_scale \(2\) is unknown in Gemma 3'),
    ],
)
def test_a_field_that_is_not_gemma_3s_is_named(tmp_path, fields, message):
  folder = write_config(tmp_path / 'tiny', SMALL | fields)
  with pytest.raises(errors.DataError, match=message) as caught:
    lm.get_config(folder)
  assert str(caught.value).count('\n') == 0
  assert str(caught.value).startswith(f'{tmp_path}/tiny/config.json: ')


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'text_config': None}, 'text_config is None, wanted an object'),
        ({'quantization_config': {'bits': 4}}, 'quantization_config is'),
        ({'other': 1}, r'other \(1\) is unknown'),
    ],
)
def test_a_field_beside_the_texts_config_is_named(tmp_path, fields, message):
  folder = write_config(tmp_path / 'tiny', NESTED | fields)
  with pytest.raises(errors.DataError, match=message):
    lm.get_config(folder)


def test_both_generations_of_configs_are_the_same_model(tmp_path):
  text = NEWER['text_config']
  old = {k: v for k, v in text.items() if k != 'rope_parameters'}
  old = old | {
      'layer_types': None,
      'sliding_window_pattern': 3,
      'rope_scaling': {'type': 'linear', 'factor': 8.0},
      'rope_theta': 1e6,
      'rope_local_base_freq': 1e4,
  }
  configs = [
      lm.get_config(write_config(tmp_path / 'm', NEWER | {'text_config': part}))
      for part in (text, old)
  ]
  assert configs[0] == configs[1]
  assert configs[0].global_rope == (1_000_000, 8.0)


@pytest.mark.parametrize('prefix', [*folders.PREFIXES.values(), 'model.'])
def test_parts_for_images_are_not_read(tmp_path, prefix):
  folder = folders.write(tmp_path / 'tiny', NESTED, prefix=prefix)
  wanted = lm.load(str(folder)).params
  path = folder / 'model.safetensors'
  tensors = safetensors.load_file(path)
  for name in (
      'vision_tower.vision_model.embeddings.patch_embedding.weight',
      'model.vision_tower.encoder.layers.0.weight',
      'multi_modal_projector.mm_input_projection_weight',
      'language_model.lm_head.weight',
  ):
    tensors[name] = np.ones(3, np.float32)
  safetensors.save_file(tensors, path)
  jax.tree.map(
      np.testing.assert_array_equal, lm.load(str(folder)).params, wanted
  )
  tensors['model.audio_tower.weight'] = np.ones(3, np.float32)
  safetensors.save_file(tensors, path)
  with pytest.raises(errors.DataError, match='audio_tower.weight is unknown'):
    lm.load(str(folder))


def test_rows_after_the_vocabulary_are_not_read(tmp_path):
  rows = gemma3_fields.VOCAB + gemma3_fields.SPARE_ROWS
  config = SMALL | {'vocab_size': rows, 'num_hidden_layers': 1}
  folder = folders.write(tmp_path / 'tiny', config)
  model = lm.load(str(folder), num_layers=0)
  assert model.config.vocab == 262_144
  table = safetensors.load_file(folder / 'model.safetensors')
  np.testing.assert_array_equal(
      model.params['embedder']['input_embedding'],
      table['model.embed_tokens.weight'][:262_144],
  )


def save(folder, params, prefix=''):
  """Writes parameters as an orbax folder with a prefix of their keys."""
  tree = dict(params)
  for key in reversed(prefix.split('/') if prefix else []):
    tree = {key: tree}
  ocp.PyTreeCheckpointer().save(folder, tree)
  return str(folder)


@pytest.mark.parametrize('prefix', ['', 'rlx_networks/policy_network'])
def test_orbax_folders_are_read_without_the_parts_for_images(tmp_path, prefix):
  model = lm.load(str(folders.write(tmp_path / 'hub', SMALL)))
  flat = weights.flatten(model.params) | {
      'vision_encoder/x/kernel': np.ones(3, np.float32),
      'embedder/mm_input_projection/w': np.ones(3, np.float32),
  }
  folder = save(tmp_path / 'tiny', weights.unflatten(flat), prefix)
  config = lm.get_config(folder)
  assert config.family == 'gemma3'
  assert (config.window, config.context) == (512, 32_768)
  assert config.global_rope == (1_000_000, 1.0) and config.qk_norm
  jax.tree.map(
      np.testing.assert_array_equal, lm.load(folder).params, model.params
  )


def test_shapes_of_a_released_model_determine_its_other_fields():
  complete = lm.FAMILIES['gemma3'].orbax.complete
  for config in MODELS:
    for field, value in complete(dataclasses.asdict(config)).items():
      assert getattr(config, field) == value, (config.name, field)


def test_forms_of_attention_agree(tmp_path):
  text = SMALL | {'head_dim': 128, 'query_pre_attn_scalar': 128}
  text |= {'sliding_window': 100, 'max_position_embeddings': 512}
  model = lm.load(str(folders.write(tmp_path / 'tiny', text)))
  tokens = np.random.default_rng(0).integers(4, 48, (2, 256)).astype(np.int32)
  tokens[:, [0, 90]] = packing.BOS
  places = {
      'positions': jnp.asarray(packing.positions(tokens)),
      'segments': jnp.asarray(packing.segments(tokens)),
  }

  def logits(form):
    config = dataclasses.replace(model.config, attention=form)
    other = dataclasses.replace(model, config=config)
    return jax.jit(lambda p, x: lm.logits(other, p, x, **places))(
        model.params, jnp.asarray(tokens)
    )

  dense = logits('dense')
  for form in ('chunked', 'splash'):
    np.testing.assert_allclose(logits(form), dense, rtol=1e-5, atol=5e-5)


def test_turns_have_the_familys_ids():
  ids = {name: f.special_ids for name, f in families.FAMILIES.items()}
  assert ids['gemma2'][-2:] == (106, 107)
  assert ids['gemma3'][-2:] == (105, 106)
