"""GGUF files of other models, and damaged ones, are refused in one line."""

import dataclasses

import pytest

from jumprelu import errors, lm
from jumprelu.run import main
from tests.lm import gguf_files

Type = gguf_files.Type
_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9


def refused(draft, path, match):
  """Checks that loading the model fails in one line."""
  draft.write(path)
  with pytest.raises(errors.DataError, match=match) as caught:
    lm.load(str(path))
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)


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
        'gemma3.rope.scaling.factor is inf, wanted a number of at least 1',
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
  draft = gguf_files.draft(gguf_files.CONFIGS[config])
  change(draft)
  refused(draft, tmp_path / 'a.gguf', match)


def test_a_damaged_file_has_the_exit_code_of_damaged_data(tmp_path, capsys):
  draft = gguf_files.draft(gguf_files.CONFIGS['gemma3'])
  path = tmp_path / 'a.gguf'
  path.write_bytes(draft.bytes()[:-5])
  argv = [f'--out={tmp_path / "run"}', f'--model={path}', '--layer=0']
  assert main.launch('train', argv) == 65
  error = capsys.readouterr().err
  assert error.count('\n') == 1 and 'but the file has' in error
  assert not (tmp_path / 'run').exists()
