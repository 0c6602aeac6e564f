"""Damaged or unsupported published files: one line names the fault."""

import json
import math

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import formats
from tests import small_release
from tests.release.formats import folders


def refused(root, *words, error=errors.DataError):
  with pytest.raises(error) as caught:
    formats.find(root)
  message = str(caught.value)
  assert '\n' not in message
  for word in words:
    assert word in message, message


@pytest.mark.parametrize(
    'name, change, words',
    [
        ('b_enc', lambda x: x[:-1], ('b_enc has shape (15)', 'wanted (16)')),
        (
            'W_dec',
            lambda x: x.T.copy(),
            ('W_dec has shape (6, 16)', 'wanted (16, d_out)'),
        ),
        ('W_enc', lambda x: x[0], ('W_enc has shape (16)', '(d_in, width)')),
        ('threshold', lambda x: x * np.nan, ('threshold', 'non-finite')),
        (
            'b_dec',
            lambda x: x.astype(int),
            ('b_dec is of type int64', 'floats'),
        ),
        ('b_dec', None, ('b_dec is missing', 'wanted: shape (6)')),
    ],
)
def test_an_invalid_array_of_gemma_scope(tmp_path, name, change, words):
  a = folders.arrays()
  if change:
    a[name] = change(a[name])
  else:
    del a[name]
  folders.gemma_scope(tmp_path / 'sae', a)
  refused(tmp_path, 'sae/params.npz', *words)


def test_a_cross_layer_transcoder_is_refused_by_its_tensor(tmp_path):
  a = folders.arrays()
  a['W_dec'] = np.stack([a['W_dec']] * 3)
  folders.gemma_scope_2(tmp_path / 'clt', a)
  refused(tmp_path, 'clt/params.safetensors', 'w_dec has shape (3, 16, 6)')


def test_an_affine_term_that_the_config_excludes(tmp_path):
  skip = np.eye(6, dtype=np.float32)
  folders.gemma_scope_2(
      tmp_path / 'sae',
      folders.arrays(),
      skip=skip,
      config={'affine_connection': False},
  )
  refused(tmp_path, 'unexpected tensor affine_skip_connection')


def test_a_config_of_another_architecture(tmp_path):
  folders.gemma_scope_2(
      tmp_path / 'sae', folders.arrays(), config={'architecture': 'topk'}
  )
  refused(tmp_path, 'config.json', "'topk'", "'jump_relu'")


def _unversioned(**metadata):
  return {'apply_b_dec_to_input': None, 'metadata': metadata}


@pytest.mark.parametrize(
    'field, value',
    [
        ('affine_connection', 'no'),
        ('affine_connection', 0),
        ('hf_hook_point_in', ['model.layers.3.output']),
        ('hf_hook_point_out', 3),
        ('hf_hook_point_out', math.inf),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, field, value):
  config = {'hf_hook_point_in': 'model.layers.3.output', field: value}
  folders.gemma_scope_2(tmp_path / 'sae', folders.arrays(), config=config)
  refused(tmp_path, f'config.json: {field} is', 'wanted')


def test_a_hook_with_a_huge_layer_is_unknown(tmp_path):
  hook = f'blocks.{"9" * 5000}.hook_resid_post'
  config = {'architecture': 'jumprelu'}
  folders.saelens(tmp_path / 'a', folders.arrays(), config, hook_name=hook)
  assert folders.only(tmp_path).origin.layer is None


@pytest.mark.parametrize('write', [folders.gemma_scope, folders.gemma_scope_2])
def test_an_infinite_threshold_is_not_taken_for_damage(tmp_path, write):
  a = folders.arrays()
  a['threshold'][:3] = np.inf
  write(tmp_path / 'sae', a)
  refused(tmp_path, 'infinite for 3 of 16 latents', 'never fire', '1e30')


@pytest.mark.parametrize(
    'config, words',
    [
        ({'architecture': 'temporal'}, ("architecture is 'temporal'", 'topk')),
        ({'activation_fn': 'tanh-relu'}, ("activation_fn is 'tanh-relu'",)),
        ({'normalize_activations': 'layer_norm'}, ('normalize_activations',)),
        ({'apply_b_dec_to_input': None}, ('apply_b_dec_to_input is missing',)),
        ({'d_sae': 8}, ('W_enc has shape (6, 16)', 'wanted (d_in, 8)')),
        ({'d_in': 5}, ('W_enc has shape (6, 16)', 'wanted (5, 16)')),
        ({'d_in': '6'}, ("cfg.json: d_in is '6', wanted a whole number",)),
        ({'d_in': 6.0}, ("d_in is '6.0'", 'whole number')),
        ({'d_sae': [16]}, ("d_sae is '[16]'", 'whole number')),
        ({'d_sae': True}, ("d_sae is 'True'", 'whole number')),
        ({'architecture': ['jumprelu']}, ("architecture is ['jumprelu']",)),
        (
            _unversioned(sae_lens_version='\u00b2'),
            ('apply_b_dec_to_input is missing',),
        ),
        (
            _unversioned(sae_lens_version='5' * 5000),
            ('apply_b_dec_to_input is missing',),
        ),
        (
            _unversioned(sae_lens_version='5.1', hook_name=[3]),
            ("hook_name is '[3]', wanted a name",),
        ),
        ({'hook_head_index': 3}, ('hook_head_index is 3', 'wanted None')),
        (
            {'metadata': {'hook_head_index': 3, 'sae_lens_version': '6.0'}},
            ('metadata.hook_head_index is 3',),
        ),
        (
            {'finetuning_scaling_factor': True},
            ('finetuning_scaling_factor is True',),
        ),
        ({'reshape_activations': 'flat'}, ("reshape_activations is 'flat'",)),
        ({'input_shift': 0.5}, ("field input_shift ('0.5') is unknown",)),
        (
            {'d_in': 5, 'd_sae': None},
            ('W_enc has shape (6, 16)', 'wanted (5, 16)'),
        ),
    ],
)
def test_invalid_fields_of_a_cfg_json(tmp_path, config, words):
  folders.saelens(
      tmp_path / 'sae', folders.arrays(), {'architecture': 'jumprelu'} | config
  )
  refused(tmp_path, *words)


@pytest.mark.parametrize(
    'config, words',
    [
        ({}, ('k is None',)),
        ({'k': 0}, ('k is 0', 'wanted 1, 2')),
        ({'k': 2.5}, ('k is 2.5',)),
        ({'k': True}, ('k is True',)),
        ({'k': 17}, ('k is 17', 'at most the width, 16')),
        ({'k': 10**300}, ('k is 1000', 'at most the width')),
        (
            {'k': 4, 'rescale_acts_by_decoder_norm': 'yes'},
            ("rescale_acts_by_decoder_norm is 'yes'", 'true or false'),
        ),
    ],
)
def test_invalid_fields_of_a_topk_cfg_json(tmp_path, config, words):
  a = folders.arrays()
  del a['threshold']
  folders.saelens(tmp_path / 'sae', a, {'architecture': 'topk'} | config)
  refused(tmp_path, 'cfg.json', *words)


@pytest.mark.parametrize(
    'name', ['scaling_factor', 'finetuning_scaling_factor']
)
@pytest.mark.parametrize('factor', [1.0, 2.0])
def test_a_scaling_factor_must_be_one(tmp_path, name, factor):
  a = folders.arrays()
  a[name] = np.full(folders.WIDTH, factor, np.float32)
  folders.saelens(tmp_path / 'sae', a, {'architecture': 'jumprelu'})
  if factor == 1:
    assert name not in formats.find(tmp_path)['sae'].params
  else:
    refused(tmp_path, f'{name} is not 1')


def test_a_width_that_contradicts_the_folder(tmp_path):
  a = folders.arrays()
  folders.gemma_scope(tmp_path / 'layer_1' / 'width_16k', a)
  refused(tmp_path, 'W_enc has 16 latents', 'width_16k')


def test_embedding_saes_and_empty_folders(tmp_path):
  refused(tmp_path, 'no SAE in it or below it', error=errors.MissingInputError)
  folders.gemma_scope(tmp_path / 'embedding' / 'width_16', folders.arrays())
  refused(tmp_path, 'embedding', 'layer_L', error=errors.UserError)


def test_a_truncated_file(tmp_path):
  for name, write in (
      ('params.npz', folders.gemma_scope),
      ('params.safetensors', folders.gemma_scope_2),
  ):
    path = write(tmp_path / name, folders.arrays()) / name
    path.write_bytes(path.read_bytes()[:200])
    refused(tmp_path / name, str(path))


def test_a_cfg_json_that_is_no_object(tmp_path):
  folder = folders.saelens(tmp_path / 'sae', folders.arrays(), {})
  (folder / 'cfg.json').write_text(json.dumps([1]))
  refused(tmp_path, 'cfg.json', 'not a JSON object')


def test_flags_supply_values_that_the_files_lack(tmp_path):
  folders.gemma_scope(tmp_path / 'sae', folders.arrays())
  released = formats.find(tmp_path)

  def complete(**flags):
    return formats.complete(released, formats.Origin(**flags))['sae'].origin

  with pytest.raises(errors.UserError, match='set --model, --layer, --site'):
    complete()
  with pytest.raises(errors.UserError, match='sae.*set --input_gain$'):
    complete(model='gemma2_2b', layer=3, site='transcoder')
  flags = {'model': 'gemma2_2b', 'layer': 3, 'site': 'mlp_out'}
  assert complete(**flags) == ('gemma2_2b', 3, 'mlp_out', None)


def test_a_flag_may_change_the_model_but_not_the_layer(tmp_path):
  name = 'gemma-scope-2b-pt-res/layer_5/width_16/average_l0_3'
  folders.gemma_scope(tmp_path / name, folders.arrays())
  released = formats.find(tmp_path)
  it = formats.complete(released, formats.Origin(model='gemma2_2b_it'))
  assert it[name].origin == ('gemma2_2b_it', 5, 'resid_post', None)
  assert formats.model_of(it) == 'gemma2_2b_it'
  with pytest.raises(errors.UserError, match='--layer=6: .* is of layer 5'):
    formats.complete(released, formats.Origin(layer=6))


def test_saes_of_two_models_need_one_flag(tmp_path):
  for size in ('2b', '9b'):
    name = f'gemma-scope-{size}-pt-res/layer_5/width_16/average_l0_3'
    folders.gemma_scope(tmp_path / name, folders.arrays())
  released = formats.complete(formats.find(tmp_path), formats.Origin())
  with pytest.raises(errors.UserError, match='gemma2_2b, gemma2_9b.*--model'):
    formats.model_of(released)


@pytest.mark.parametrize('value', [3.5, ['a'], {'a': 1}])
def test_names_of_hooks_that_are_no_texts_are_refused(value, tmp_path):
  folders.gemma_scope_2(
      tmp_path / 'a',
      folders.arrays(),
      config={
          'hf_hook_point_in': 'model.layers.3.output',
          'hf_hook_point_out': value,
      },
  )
  refused(tmp_path / 'a', 'config.json', 'hf_hook_point_out is')
  folders.saelens(
      tmp_path / 'b',
      folders.arrays(),
      {'architecture': 'jumprelu'},
      hook_name_out=value,
  )
  refused(tmp_path / 'b', 'hook_name_out is')
  folders.saelens(tmp_path / 'c', folders.arrays(), {'architecture': value})
  refused(tmp_path / 'c', 'cfg.json', 'architecture is')


@pytest.mark.parametrize(
    'field, value',
    [
        ('training', ['a']),
        ('training', {'model': 3}),
        ('layer', '1'),
        ('layer', -1),
        ('site', ['resid_post']),
        ('site', 'nowhere'),
        ('input_gain', 'yes'),
    ],
)
def test_a_field_of_our_own_config_with_a_wrong_value(tmp_path, field, value):
  small_release.write(tmp_path / 'release')
  path = tmp_path / 'release' / small_release.FOLDER / 'config.json'
  config = _unsealed(path)
  path.write_text(json.dumps(config | {field: value}))
  name = 'model' if isinstance(value, dict) else field
  refused(tmp_path / 'release', f'config.json: {name}')


def test_infinite_sizes_of_our_own_config_are_refused(tmp_path):
  small_release.write(tmp_path / 'release')
  path = tmp_path / 'release' / small_release.FOLDER / 'config.json'
  config = _unsealed(path)
  config['sae']['width'] = float('inf')
  path.write_text(json.dumps(config))
  refused(tmp_path / 'release', 'config.json: describes no known SAE')


def _unsealed(path):
  """Returns the object in a file without its seal, as earlier versions wrote."""
  value = json.loads(path.read_text())
  del value['sha256_of_fields']
  return value
