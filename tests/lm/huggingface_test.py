"""Hugging Face folders are read, and errors name the faulty field or file."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jumprelu import errors, lm, sharding
from jumprelu.lm import huggingface, placement, weights
from jumprelu.run import main
from tests.lm import huggingface_folders

CONFIG = huggingface_folders.CONFIGS['27b']
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'


@pytest.fixture
def folder(tmp_path):
  return huggingface_folders.write(tmp_path / 'tiny_27b', CONFIG)


def change_config(folder, **fields):
  (folder / 'config.json').write_text(json.dumps(CONFIG | fields))


def change_tensors(folder, **changes):
  """Replaces tensors by name (`.` written as `__`); None removes a tensor."""
  path = folder / WEIGHTS
  tensors = safetensors.load_file(path)
  for name, value in changes.items():
    name = name.replace('__', '.')
    tensors = {k: v for k, v in tensors.items() if k != name}
    if value is not None:
      tensors[name] = value
  safetensors.save_file(tensors, path)


def check(folder, layers=3):
  """Checks the folder's tensors of the first layers against its config."""
  config = lm.get_config(str(folder))
  layout = placement.param_layout(config, num_layers=layers, dtype=jnp.float32)
  huggingface.Weights(folder, config).check(
      {k: v.shape for k, v in weights.flatten(layout).items()}
  )


def test_shapes_caps_window_and_query_scale_come_from_the_config(folder):
  config = lm.get_config(str(folder))
  assert config == lm.LmConfig(
      name='tiny_27b', vocab=48, d_model=16, ffw=32, heads=4, kv_heads=2,
      head_dim=8, layers=3, window=5, context=64, attention_softcap=50.0,
      logits_softcap=30.0, query_scale_by_model=True, transposed_gating=True,
  )  # fmt: skip
  change_config(folder, query_pre_attn_scalar=8, final_logit_softcapping=20)
  config = lm.get_config(str(folder) + '/')
  assert not config.query_scale_by_model
  assert (config.name, config.logits_softcap) == ('tiny_27b', 20.0)


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'model_type': 'gemma'}, "model_type is 'gemma', wanted 'gemma2'"),
        ({'head_dim': None}, 'head_dim is None'),
        ({'num_hidden_layers': 0}, 'num_hidden_layers is 0'),
        ({'num_key_value_heads': 3}, '3 does not divide 4'),
        ({'attn_logit_softcapping': None}, 'attn_logit_softcapping is None'),
        ({'tie_word_embeddings': False}, 'tie_word_embeddings is False'),
        ({'hidden_activation': 'silu'}, "hidden_activation is 'silu'"),
        ({'rope_parameters': {'rope_theta': 1e6}}, 'rope_theta is 1000000.0'),
        ({'query_pre_attn_scalar': 7}, r'scalar is 7, wanted head_dim \(8\)'),
        (
            {'layer_types': ['full_attention'] * 3},
            'layer_types must list 3 layers',
        ),
        ({'num_hidden_layers': 10**9}, 'wanted at most 1,000'),
        ({'hidden_size': 10**400}, 'hidden_size is 1000.*wanted at most'),
        ({'vocab_size': 10**18}, 'vocab_size is 10{18}, wanted at most'),
        ({'sliding_window': 10**30}, 'sliding_window is 10{30}, wanted at'),
        ({'attn_logit_softcapping': math.inf}, 'softcapping is inf, wanted'),
        ({'final_logit_softcapping': 10**400}, 'wanted at most 2,147,483,647'),
    ],
)
def test_a_field_that_is_not_gemma_2s_is_named(folder, fields, message):
  change_config(folder, **fields)
  with pytest.raises(errors.DataError, match=message) as caught:
    lm.get_config(str(folder))
  assert 'config.json' in str(caught.value)


LINEAR = {'rope_type': 'linear', 'factor': 8.0}
DEFAULT = {'rope_type': 'default', 'rope_theta': 10000.0}


@pytest.mark.parametrize(
    'fields, message',
    [
        (
            {'rope_scaling': {'type': 'linear', 'factor': 8.0}},
            "rope_scaling.type is 'linear', wanted 'default'",
        ),
        (
            {
                'rope_theta': None,
                'rope_parameters': {
                    'full_attention': LINEAR | {'rope_theta': 1e6},
                    'sliding_attention': DEFAULT,
                },
            },
            'rope_parameters.full_attention.rope_theta is 1000000.0',
        ),
        (
            {'rope_parameters': DEFAULT, 'rope_scaling': LINEAR},
            "rope_scaling.rope_type is 'linear'",
        ),
        (
            {'rope_parameters': DEFAULT | {'partial_rotary_factor': 0.5}},
            'rope_parameters.partial_rotary_factor is 0.5, wanted 1.0',
        ),
        (
            {'rope_parameters': DEFAULT | {'factor': 8.0}},
            r'rope_parameters.factor \(8.0\) is unknown in Gemma 2',
        ),
        ({'rope_parameters': 'linear'}, "rope_parameters is 'linear', wanted"),
        (
            {'rope_parameters': {'full_attention': 8}},
            'rope_parameters.full_attention is 8, wanted an object',
        ),
        ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5'),
        ({'rope_local_base_freq': 1e4}, r'rope_local_base_freq \(10000.0\)'),
        ({'hidden_act': 'silu'}, "hidden_act is 'silu'"),
        ({'sliding_window_size': 8}, r'wanted sliding_window \(5\)'),
        ({'sliding_window_pattern': 6}, 'sliding_window_pattern is 6'),
        (
            {'quantization_config': {'quant_method': 'gptq', 'bits': 4}},
            "quantization_config is {'quant_method': 'gptq', 'bits': 4}",
        ),
        ({'layer_types': []}, 'layer_types must list 3 layers'),
        ({'mup_scale': 'x' * 99}, r"mup_scale \('x{56}...\) is unknown"),
    ],
)
def test_fields_that_would_change_activations_are_refused(
    folder, fields, message
):
  change_config(folder, **fields)
  with pytest.raises(errors.DataError, match=message) as caught:
    lm.get_config(str(folder))
  text = str(caught.value)
  assert text.startswith(f'{folder / "config.json"}: ') and '\n' not in text


# The sizes of the released models.
RELEASED = {
    '2b': (2304, 9216, 8, 4, 256, 26, 256),
    '9b': (3584, 14336, 16, 8, 256, 42, 256),
    '27b': (4608, 36864, 32, 16, 128, 46, 144),
}


def released_config(size):
  names = (
      'hidden_size',
      'intermediate_size',
      'num_attention_heads',
      'num_key_value_heads',
      'head_dim',
      'num_hidden_layers',
      'query_pre_attn_scalar',
  )
  return {
      'architectures': ['Gemma2ForCausalLM'],
      'attention_bias': False,
      'attention_dropout': 0.0,
      'attn_logit_softcapping': 50.0,
      'bos_token_id': 2,
      'eos_token_id': 1,
      'final_logit_softcapping': 30.0,
      'hidden_activation': 'gelu_pytorch_tanh',
      'initializer_range': 0.02,
      'max_position_embeddings': 8192,
      'model_type': 'gemma2',
      'pad_token_id': 0,
      'rms_norm_eps': 1e-6,
      'sliding_window': 4096,
      'use_cache': True,
      'vocab_size': 256000,
  } | dict(zip(names, RELEASED[size], strict=True))


OLDER = {
    '_name_or_path': 'google/gemma-2-9b',
    'cache_implementation': 'hybrid',
    'eos_token_id': [1, 107],
    'hidden_act': 'gelu_pytorch_tanh',
    'rope_scaling': None,
    'rope_theta': 10000.0,
    'sliding_window_size': 4096,
    'torch_dtype': 'float32',
    'transformers_version': '4.42.4',
}
NEWER = {
    'dtype': 'bfloat16',
    'rope_parameters': DEFAULT,
    'tie_word_embeddings': True,
    'transformers_version': '5.0.0',
    'use_bidirectional_attention': None,
}


@pytest.mark.parametrize('size', RELEASED)
@pytest.mark.parametrize('version', ['older', 'newer'])
def test_configs_of_the_released_models_are_read(tmp_path, size, version):
  fields = released_config(size)
  if version == 'older':
    fields |= OLDER
  else:
    kinds = ['sliding_attention', 'full_attention']
    fields |= NEWER | {
        'layer_types': kinds * (fields['num_hidden_layers'] // 2)
    }
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  config = lm.get_config(str(tmp_path))
  assert (config.d_model, config.layers) == (
      RELEASED[size][0],
      RELEASED[size][5],
  )
  assert config.query_scale_by_model == (size == '27b')


def test_newer_forms_of_the_same_config_are_read(folder):
  kinds = ['sliding_attention', 'full_attention', 'sliding_attention']
  expected = lm.get_config(str(folder))
  both = {'sliding_attention': DEFAULT, 'full_attention': DEFAULT}
  for rope in (DEFAULT, both):
    change_config(
        folder, layer_types=kinds, rope_parameters=rope, rope_theta=None
    )
    assert lm.get_config(str(folder)) == expected


def test_a_missing_or_malformed_config_is_an_error(folder):
  (folder / 'config.json').write_text('{')
  with pytest.raises(errors.DataError, match='config.json: not JSON'):
    lm.get_config(str(folder))
  (folder / 'config.json').unlink()
  with pytest.raises(errors.MissingInputError, match='config.json: missing'):
    lm.get_config(str(folder))


def test_the_first_layers_sharded_over_a_mesh_equal_the_unsharded(folder):
  whole = lm.load(str(folder))
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  sharded = lm.load(str(folder), num_layers=2, dtype=jnp.bfloat16, mesh=mesh)
  assert set(sharded.params) == set(whole.params) - {'layer_2'}
  wanted = {k: whole.params[k] for k in sharded.params}
  for ours, theirs in zip(
      jax.tree.leaves(sharded.params), jax.tree.leaves(wanted), strict=True
  ):
    assert ours.dtype == jnp.bfloat16 and theirs.dtype == jnp.float32
    np.testing.assert_array_equal(ours, theirs.astype(jnp.bfloat16))
  gating = sharded.params['layer_0']['mlp']['gating_einsum']
  assert gating.addressable_shards[0].data.shape == (2, 16, 16)


def test_only_tensors_of_the_needed_layers_are_read_each_once(
    folder, monkeypatch
):
  read = []
  original = weights.read_tensor

  def spy(path, name, rows=None):
    read.append(name)
    return original(path, name, rows)

  monkeypatch.setattr(weights, 'read_tensor', spy)
  lm.load(str(folder), num_layers=1)
  wanted = huggingface_folders.shapes(CONFIG | {'num_hidden_layers': 1})
  assert sorted(read) == sorted(wanted)


def test_weights_in_several_files_equal_those_in_one_file(folder, tmp_path):
  several = huggingface_folders.write(tmp_path / 'several', CONFIG, files=4)
  config = lm.get_config(str(folder))
  params = [
      weights.load(config, huggingface.Weights(f, config))
      for f in (folder, several)
  ]
  jax.tree.map(np.testing.assert_array_equal, *params)


K = 'model__layers__1__self_attn__k_proj__weight'
V = 'model__layers__2__self_attn__v_proj__weight'


@pytest.mark.parametrize(
    'changes, message',
    [
        ({K: None}, r'layers.1.self_attn.k_proj.weight is missing.*\(16, 16\)'),
        (
            {K: np.zeros((8, 16), np.float32)},
            r'k_proj.weight has shape \(8, 16\).*wants \(16, 16\)',
        ),
        (
            {K: np.zeros((16, 16, 1), np.float32)},
            r'k_proj.weight has shape \(16, 16, 1\)',
        ),
        ({K: np.zeros((16, 16), np.int8)}, 'k_proj.weight is of type I8'),
        (
            {'model__layers__3__mlp__up_proj__weight': np.zeros(1, np.float32)},
            r'layers.3.mlp.up_proj.weight is unknown',
        ),
    ],
)
def test_wrong_tensors_are_named_with_their_file(folder, changes, message):
  change_tensors(folder, **changes)
  with pytest.raises(errors.DataError, match=message) as caught:
    check(folder)
  assert WEIGHTS in str(caught.value) or 'missing' in str(caught.value)


def test_a_tensor_of_a_layer_that_is_not_needed_may_be_missing(folder):
  change_tensors(folder, **{V: None})
  check(folder, layers=2)
  with pytest.raises(errors.DataError, match='v_proj.weight is missing'):
    check(folder)


def test_a_copy_of_the_embedding_as_lm_head_is_not_read(folder):
  change_tensors(folder, lm_head__weight=np.zeros((48, 16), np.float32))
  check(folder)


@pytest.mark.parametrize('share', [0.0001, 0.3, 0.99])
def test_a_truncated_file_is_named(folder, share):
  data = (folder / WEIGHTS).read_bytes()
  (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])
  with pytest.raises(errors.DataError, match=f'{WEIGHTS}: not readable'):
    check(folder)


def test_an_index_of_missing_or_outside_files_is_named(tmp_path):
  folder = huggingface_folders.write(tmp_path / 'tiny', CONFIG, files=2)
  lost = sorted(folder.glob('*.safetensors'))[1]
  lost.rename(tmp_path / 'lost')
  with pytest.raises(errors.DataError, match=f'{lost.name}: missing'):
    check(folder)
  table = json.loads((folder / INDEX).read_text())
  table['weight_map']['model.norm.weight'] = '../lost'
  (folder / INDEX).write_text(json.dumps(table))
  with pytest.raises(errors.DataError, match='no weight_map'):
    check(folder)
  (folder / INDEX).unlink()
  for path in folder.glob('*.safetensors'):
    path.unlink()
  with pytest.raises(errors.MissingInputError, match='no \\*.safetensors'):
    check(folder)


def test_a_tensor_in_two_files_is_refused(folder, tmp_path):
  shards = huggingface_folders.write(tmp_path / 'shards', CONFIG, files=2)
  whole = tmp_path / 'shards' / WEIGHTS
  whole.write_bytes((folder / WEIGHTS).read_bytes())
  with pytest.raises(errors.DataError, match=f'has both {WEIGHTS} and {INDEX}'):
    check(shards)
  (shards / INDEX).unlink()
  with pytest.raises(errors.DataError) as caught:
    check(shards)
  message = str(caught.value)
  assert f'and in {WEIGHTS}; remove' in message and '-of-' in message
  whole.unlink()
  check(shards)


def test_a_command_with_a_damaged_folder_exits_with_65(folder, capsys):
  change_config(folder, model_type='llama')
  out = pathlib.Path(folder).parent / 'run'
  argv = [f'--model={folder}', f'--out={out}', '--layer=0']
  assert main.launch('train', argv) == 65
  error = capsys.readouterr().err
  assert "model_type is 'llama'" in error and error.count('\n') == 1
  assert not out.exists()
