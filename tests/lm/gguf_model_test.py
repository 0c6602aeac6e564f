"""A language model in a GGUF file equals the same model in a folder."""

import dataclasses
import shutil
import sys

import gguf
import numpy as np
import pytest

from jumprelu import errors, lm, sharding
from jumprelu.lm import gguf_model, weights
from jumprelu.lm.families import gguf_fields
from jumprelu.run import main
from jumprelu.training import config as config_lib
from tests.lm import gguf_files, huggingface_folders

Type = gguf_files.Type
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_GEMMA2, _GEMMA3 = (gguf_files.CONFIGS[name] for name in ('9b', 'gemma3'))
_WIDE = {
    'hidden_size': 256,
    'intermediate_size': 256,
    'head_dim': 64,
    'query_pre_attn_scalar': 64,
    'num_hidden_layers': 1,
}


def flat(path, **kwargs):
  """Returns the parameters of a model, by key."""
  params = weights.flatten(lm.load(str(path), **kwargs).params)
  return {key: np.asarray(value) for key, value in params.items()}


@pytest.mark.parametrize('name', gguf_files.CONFIGS)
def test_a_file_in_single_precision_equals_the_folder_bit_for_bit(
    tmp_path, name
):
  config = gguf_files.CONFIGS[name]
  path = gguf_files.write(tmp_path / 'same.gguf', config)
  folder = huggingface_folders.write(tmp_path / 'same', config)
  assert lm.get_config(str(path)) == lm.get_config(str(folder))
  ours, theirs = flat(path), flat(folder)
  assert ours.keys() == theirs.keys()
  for key, values in theirs.items():
    np.testing.assert_array_equal(ours[key], values, err_msg=key)
    assert values.any()


@pytest.mark.parametrize(
    'kind',
    [
        Type.F16,
        Type.BF16,
        Type.Q8_0,
        Type.Q4_0,
        Type.Q4_K,
        Type.Q5_0,
        Type.Q5_K,
        Type.Q6_K,
    ],
    ids=lambda kind: kind.name,
)
def test_quantised_weights_are_those_of_the_gguf_package(tmp_path, kind):
  config = _GEMMA2 | _WIDE
  path = gguf_files.write(tmp_path / 'a.gguf', config, kind)
  tensors = {
      t.name: gguf.dequantize(t.data, t.tensor_type)
      for t in gguf.GGUFReader(path).tensors
  }
  params = flat(path)
  embedding = tensors['token_embd.weight'].reshape(4096, 256)
  np.testing.assert_array_equal(params['embedder/input_embedding'], embedding)
  down = tensors['blk.0.ffn_down.weight'].reshape(256, 256)
  np.testing.assert_array_equal(params['layer_0/mlp/linear'], down.T)
  # Rows of q are not permuted: [heads * head_dim, model].
  query = tensors['blk.0.attn_q.weight'].reshape(4, 64, 256)
  np.testing.assert_array_equal(
      params['layer_0/attn/q_einsum/w'], query.transpose(0, 2, 1)
  )
  gain = tensors['blk.0.ffn_norm.weight']
  np.testing.assert_array_equal(params['layer_0/pre_ffw_norm/scale'], gain - 1)


def test_rounded_weights_are_near_those_of_the_folder(tmp_path):
  config = _GEMMA2 | _WIDE
  wanted = flat(huggingface_folders.write(tmp_path / 'a', config))
  for kind, tolerance in (
      (Type.F16, 0), (Type.BF16, 0), (Type.Q8_0, 0.002), (Type.Q5_0, 0.03),
      (Type.Q4_0, 0.06),
  ):  # fmt: skip
    actual = flat(gguf_files.write(tmp_path / 'a.gguf', config, kind))
    for key, values in wanted.items():
      np.testing.assert_allclose(actual[key], values, rtol=0, atol=tolerance)


def test_only_tensors_of_the_loaded_layers_are_read(tmp_path, monkeypatch):
  path = gguf_files.write(tmp_path / 'a.gguf', _GEMMA3)
  names, read = [], gguf_model.gguf_file.GgufFile.tensor
  monkeypatch.setattr(
      gguf_model.gguf_file.GgufFile,
      'tensor',
      lambda self, name: names.append(name) or read(self, name),
  )
  model = lm.load(str(path), num_layers=2)
  assert model.num_layers == 2 and len(names) == len(set(names)) == 2 + 2 * 13
  assert not any(name.startswith('blk.2') for name in names)


def test_a_file_is_sharded_like_a_folder(tmp_path):
  path = gguf_files.write(tmp_path / 'a.gguf', _GEMMA3)
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  actual, wanted = flat(path, mesh=mesh), flat(path)
  for key, values in wanted.items():
    np.testing.assert_array_equal(actual[key], values)


def test_the_name_is_the_files_stem_or_the_folders(tmp_path, monkeypatch):
  path = gguf_files.write(tmp_path / 'mine' / 'gemma-Q8_0.gguf', _GEMMA2)
  assert lm.get_config(str(path)).name == 'gemma-Q8_0'
  assert lm.get_config(str(path.parent)).name == 'mine'
  for model in (path, path.parent):
    assert lm.find(str(model)).tokenizer_path == path
  monkeypatch.chdir(path.parent)
  assert lm.get_config('gemma-Q8_0.gguf').name == 'gemma-Q8_0'
  # As in the repositories of quantised models.
  (path.parent / 'config.json').write_text('{}')
  assert lm.get_config('.').name == 'mine'
  # Weights of Hugging Face have priority.
  huggingface_folders.write(path.parent, _GEMMA2 | {'sliding_window': 7})
  assert lm.get_config(str(path.parent)).window == 7


def test_a_known_model_may_be_a_folder_with_a_file(tmp_path, monkeypatch):
  monkeypatch.setenv('JUMPRELU_MODELS', str(tmp_path))
  gguf_files.write(tmp_path / 'gemma3_270m' / 'a.gguf', _GEMMA3)
  with pytest.raises(errors.DataError, match='not gemma3_270m: d_model is 16'):
    lm.load('gemma3_270m')


def test_a_folder_of_several_files_is_refused(tmp_path):
  path = gguf_files.write(tmp_path / 'a.gguf', _GEMMA2)
  shutil.copy(path, tmp_path / 'b.gguf')
  with pytest.raises(errors.UserError, match='has 2 GGUF files; .*a.gguf'):
    lm.load(str(tmp_path))


def test_paths_without_a_model_have_their_own_errors(tmp_path, capsys):
  (tmp_path / 'config.gguf').write_text('{}')
  (tmp_path / 'weights.safetensors').write_bytes(bytes(64))
  (tmp_path / 'empty').mkdir()
  for model, code, words in (
      ('nowhere.gguf', 66, 'nowhere.gguf: no such file'),
      (tmp_path / 'nowhere.gguf', 66, 'no such file'),
      (tmp_path / 'empty', 66, 'or one *.gguf'),
      (tmp_path / 'config.gguf', 65, "not a GGUF file: it begins with b'{}'"),
      (tmp_path / 'weights.safetensors', 65, 'not a GGUF file'),
      ('nowhere', 2, 'use the folder or GGUF file of a model'),
  ):
    argv = [f'--out={tmp_path / "run"}', f'--model={model}', '--layer=0']
    assert main.launch('train', argv) == code
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_a_config_keeps_the_file_as_written(tmp_path):
  path = gguf_files.write(tmp_path / 'a.gguf', _GEMMA3)
  config = config_lib.resolve({'model': str(path), 'layer': 6})
  assert config.model == str(path)
  with pytest.raises(errors.UserError, match='has layers 0 to 6'):
    config_lib.resolve({'model': str(path), 'layer': 7})


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
  path = gguf_files.write(tmp_path / 'a.gguf', _GEMMA2)
  monkeypatch.setitem(sys.modules, 'gguf', None)
  # Shapes need no package.
  assert lm.get_config(str(path)).layers == 3
  with pytest.raises(errors.MissingExtraError, match=r'jumprelu\[gguf\]'):
    lm.load(str(path))


def test_optional_entries_of_gemma_3_are_read(tmp_path):
  def config(**entries):
    draft = gguf_files.draft(_GEMMA3)
    for key, entry in entries.items():
      draft.metadata[f'gemma3.{key.replace("__", ".")}'] = entry
    return lm.get_config(str(draft.write(tmp_path / 'a.gguf')))

  local, full = lm.config.LOCAL, lm.config.GLOBAL
  default = config()
  assert default.layer_pattern == (local,) * 5 + (full,)
  assert default.local_rope.base == 10_000
  assert default.global_rope == (1_000_000, 1.0)
  changed = config(
      rope__freq_base=(_F32, 5e5),
      rope__freq_base_swa=(_F32, 2e4),
      rope__scaling__type=(_STRING, 'linear'),
      rope__scaling__factor=(_F32, 4.0),
      attention__sliding_window_pattern=(_U32, 3),
  )
  assert changed.local_rope == (20_000, 1.0)
  assert changed.global_rope == (500_000, 4.0)
  assert changed.layer_pattern == (local, local, full)
  for form, factor in (('none', 1.0), ('linear', 4.0), (None, 4.0)):
    entries = {'rope__scaling__factor': (_F32, 4.0)}
    if form is not None:
      entries['rope__scaling__type'] = (_STRING, form)
    assert config(**entries).global_rope == (1_000_000, factor)
  is_local = [True, False] * 3 + [True]
  listed = config(attention__sliding_window_pattern=(_ARRAY, (7, is_local)))
  assert listed.layer_pattern == (local, full)


def test_scales_that_no_entry_has_are_those_of_the_released_models():
  read = lm.FAMILIES['gemma3'].gguf.read_fields
  fields = {
      'context_length': 131_072,
      'embedding_length': 5376,
      'block_count': 62,
      'feed_forward_length': 21504,
      'attention.head_count': 32,
      'attention.head_count_kv': 16,
      'attention.key_length': 128,
      'attention.value_length': 128,
      'attention.sliding_window': 1024,
      'attention.layer_norm_rms_epsilon': float(np.float32(1e-6)),
      'rope.freq_base': 1e6,
      'rope.scaling.type': 'linear',
      'rope.scaling.factor': 8.0,
  }
  values, problems = read(fields, 262_144)
  assert not problems
  released = dataclasses.asdict(lm.MODELS['gemma3_27b'])
  assert values['query_scale_by_model']
  assert values == {name: released[name] for name in values}


def test_every_name_of_the_table_is_that_of_llama_cpp():
  names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, 4)
  for theirs in huggingface_folders.shapes(
      huggingface_folders.GEMMA3_CONFIGS['gemma3_270m']
  ):
    expected = names.get_name(theirs, try_suffixes=('.weight',))
    layer = next((p for p in theirs.split('.') if p.isdigit()), None)
    generic = theirs.removeprefix('model.')
    if layer is not None:
      generic = generic.replace(f'.{layer}.', '.{layer}.', 1)
    assert gguf_fields.tensor_name(generic).format(layer=layer) == expected
