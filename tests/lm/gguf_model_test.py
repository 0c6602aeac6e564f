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
# The file's tokenizer has 4096 pieces.
_ROWS = {'vocab_size': 4096}
_WIDE = {
    'hidden_size': 256,
    'intermediate_size': 256,
    'head_dim': 64,
    'query_pre_attn_scalar': 64,
    'num_hidden_layers': 1,
}
_GEMMA2 = huggingface_folders.CONFIGS['9b'] | _ROWS
# llama.cpp's files cannot express any other pattern or query scale.
_GEMMA3 = (
    huggingface_folders.GEMMA3_CONFIGS['gemma3_270m']
    | _ROWS
    | {
        'query_pre_attn_scalar': 8,
        'num_hidden_layers': 7,
        'sliding_window_pattern': 6,
    }
)
_SCALED = _GEMMA3 | {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}
CONFIGS = {
    '2b': huggingface_folders.CONFIGS['2b'] | _ROWS,
    '9b': _GEMMA2,
    'ungrouped': huggingface_folders.CONFIGS['ungrouped'] | _ROWS,
    'gemma3': _GEMMA3,
    'gemma3_scaled': _SCALED,
}


def flat(path, **kwargs):
  """Returns the parameters of a model, by key."""
  params = weights.flatten(lm.load(str(path), **kwargs).params)
  return {key: np.asarray(value) for key, value in params.items()}


def refused(draft, path, match, *, error=errors.DataError):
  """Checks that loading the model fails in one line."""
  draft.write(path)
  with pytest.raises(error, match=match) as caught:
    lm.load(str(path))
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_file_in_single_precision_equals_the_folder_bit_for_bit(
    tmp_path, name
):
  config = CONFIGS[name]
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


def _entry(key, entry, config='gemma3'):
  def change(draft):
    if entry is None:
      del draft.metadata[key]
    else:
      draft.metadata[key] = entry

  return config, change


def _tensor(name, config='gemma3', **changes):
  def change(draft):
    if changes:
      draft.tensors[name] = dataclasses.replace(draft.tensors[name], **changes)
    else:
      del draft.tensors[name]

  return config, change


def _new_tensor(name):
  def change(draft):
    draft.tensors[name] = gguf_files.Tensor((4,), Type.F32, bytes(16))

  return 'gemma3', change


_REFUSED = {
    'another architecture': (
        _entry('general.architecture', (_STRING, 'llama')),
        "not shaped like Gemma 2 or Gemma 3: general.architecture is 'llama',"
        " wanted 'gemma2' or 'gemma3'",
    ),
    'EmbeddingGemma': (
        _entry('general.architecture', (_STRING, 'gemma-embedding')),
        "general.architecture is 'gemma-embedding'",
    ),
    'no architecture': (
        _entry('general.architecture', None),
        'general.architecture is None',
    ),
    'an architecture of another type': (
        _entry('general.architecture', (_U32, 3)),
        'general.architecture is 3',
    ),
    'the other family': (
        _entry('general.architecture', (_STRING, 'gemma2')),
        'not shaped like Gemma 2: .*gemma2.embedding_length is None, wanted a',
    ),
    'an adapter': (
        _entry('general.type', (_STRING, 'adapter')),
        "general.type is 'adapter', wanted 'model'",
    ),
    'a part': (
        _entry('split.count', (2, 3)),
        'is one of 3 parts of a model; merge the parts',
    ),
    'an unknown entry': (
        _entry('gemma3.attention.sinks', (_BOOL, True)),
        r'gemma3.attention.sinks \(True\) is unknown in Gemma 3',
    ),
    'caps of Gemma 2': (
        _entry('gemma3.final_logit_softcapping', (_F32, 30.0)),
        r'gemma3.final_logit_softcapping \(30.0\) is unknown in Gemma 3',
    ),
    'no caps': (
        _entry('gemma2.attn_logit_softcapping', None, '9b'),
        'gemma2.attn_logit_softcapping is None, wanted a number above 0',
    ),
    'another base in Gemma 2': (
        _entry('gemma2.rope.freq_base', (_F32, 1e6), '9b'),
        'gemma2.rope.freq_base is 1000000.0, wanted 10000.0',
    ),
    'no layers': (
        _entry('gemma3.block_count', (_U32, 0)),
        'gemma3.block_count is 0, wanted a whole number above 0',
    ),
    'a list of sizes': (
        _entry('gemma3.attention.head_count', (_ARRAY, (_U32, [4] * 7))),
        r'gemma3.attention.head_count is \[4, 4, 4, 4, 4, 4, 4\], wanted',
    ),
    'a long list': (
        _entry('gemma3.attention.head_count', (_ARRAY, (_U32, [4] * 5000))),
        r'gemma3.attention.head_count is Array\(',
    ),
    'heads that are not shared': (
        _entry('gemma3.attention.head_count_kv', (_U32, 3)),
        'head_count_kv 3 does not divide 4 heads',
    ),
    'values of another size': (
        _entry('gemma3.attention.value_length', (_U32, 16)),
        'gemma3.attention.value_length is 16, wanted 8',
    ),
    'another epsilon': (
        _entry('gemma3.attention.layer_norm_rms_epsilon', (_F32, 1e-5)),
        'gemma3.attention.layer_norm_rms_epsilon is 9.99',
    ),
    'another scaling': (
        _entry('gemma3.rope.scaling.type', (_STRING, 'yarn')),
        "gemma3.rope.scaling.type is 'yarn', wanted 'none' or 'linear'",
    ),
    'a factor of infinity': (
        _entry('gemma3.rope.scaling.factor', (_F32, float('inf'))),
        'gemma3.rope.scaling.factor is inf, wanted a number above 0',
    ),
    'a base of 0': (
        _entry('gemma3.rope.freq_base_swa', (_F32, 0.0)),
        'gemma3.rope.freq_base_swa is 0.0, wanted a number above 0',
    ),
    'a base of NaN': (
        _entry('gemma3.rope.freq_base', (_F32, float('nan'))),
        'gemma3.rope.freq_base is nan, wanted a number above 0',
    ),
    'a base that is not whole': (
        _entry('gemma3.rope.freq_base', (_F32, 0.5)),
        'gemma3.rope.freq_base is 0.5, wanted a whole number',
    ),
    'a pattern of 2^31 layers': (
        _entry('gemma3.attention.sliding_window_pattern', (_U32, 2**31)),
        'sliding_window_pattern is 2147483648, wanted a list or a whole number',
    ),
    'a pattern of fewer layers': (
        _entry(
            'gemma3.attention.sliding_window_pattern',
            (_ARRAY, (7, [True, False])),
        ),
        'sliding_window_pattern must list 7 layers',
    ),
    'another vocabulary': (
        _entry('gemma3.vocab_size', (_U32, 4097)),
        'gemma3.vocab_size is 4097, wanted 4096',
    ),
    'fewer pieces': (
        _entry('tokenizer.ggml.tokens', (_ARRAY, (_STRING, ['a', 'b']))),
        'tokenizer.ggml.tokens has 2 pieces, but token_embd.weight has 4096',
    ),
    'more layers': (
        _entry('gemma3.block_count', (_U32, 8)),
        'tensor blk.7.attn_k_norm.weight is missing; wanted: shape',
    ),
    'fewer layers': (
        _entry('gemma3.block_count', (_U32, 6)),
        "tensor 'blk.6.attn_q.weight' is unknown in a Gemma 3 of 6 layers",
    ),
    'no embedding': (
        _tensor('token_embd.weight'),
        'tensor token_embd.weight is missing',
    ),
    'no norm': (
        _tensor('output_norm.weight'),
        r'tensor output_norm.weight is missing; wanted: shape \(16,\)',
    ),
    'a tensor of another shape': (
        _tensor('blk.0.ffn_down.weight', dims=(16, 32)),
        r'tensor blk.0.ffn_down.weight has shape \(32, 16\), the .* \(16, 32\)',
    ),
    'a separate head': (
        _new_tensor('output.weight'),
        "tensor 'output.weight' is unknown in a Gemma 3 of 7 layers",
    ),
}


@pytest.mark.parametrize('name', _REFUSED)
def test_a_file_of_another_model_is_refused_in_one_line(tmp_path, name):
  (config, change), match = _REFUSED[name]
  draft = gguf_files.draft(CONFIGS[config])
  change(draft)
  refused(draft, tmp_path / 'a.gguf', match)


def test_a_damaged_file_has_the_exit_code_of_damaged_data(tmp_path, capsys):
  draft = gguf_files.draft(_GEMMA3)
  path = tmp_path / 'a.gguf'
  path.write_bytes(draft.bytes()[:-5])
  argv = [f'--out={tmp_path / "run"}', f'--model={path}', '--layer=0']
  assert main.launch('train', argv) == 65
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and 'but the file has' in error
  assert not (tmp_path / 'run').exists()


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
