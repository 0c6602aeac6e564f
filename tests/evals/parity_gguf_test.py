"""A model in a GGUF file equals transformers, which reads the file itself."""

import pytest

from jumprelu import lm
from jumprelu.lm import huggingface
from jumprelu.run import main
from tests.lm import gguf_files, huggingface_folders

# transformers assumes the size of heads of the released models.
_LIKE_RELEASED = {'head_dim': 256, 'query_pre_attn_scalar': 256}
_CONFIGS = {
    name: gguf_files.CONFIGS[name] | _LIKE_RELEASED for name in ('9b', 'gemma3')
}


def test_transformers_reads_folders_of_hugging_face_and_gguf_files(tmp_path):
  path = gguf_files.write(tmp_path / 'a' / 'a.gguf', _CONFIGS['9b'])
  folder = huggingface_folders.write(tmp_path / 'b', _CONFIGS['9b'])
  assert lm.transformers_path(str(path)) == path
  assert lm.transformers_path(str(path.parent)) == path
  assert lm.transformers_path(str(folder)) == folder
  assert lm.find(str(folder)).format is huggingface


@pytest.mark.interop
@pytest.mark.parametrize('name', _CONFIGS)
@pytest.mark.parametrize('kind', ['F32', 'Q8_0'])
def test_every_tap_equals_transformers_on_the_same_file(
    tmp_path, capsys, name, kind
):
  config = _CONFIGS[name] | {'hidden_size': 64, 'intermediate_size': 32}
  path = gguf_files.write(tmp_path / 'tiny.gguf', config, gguf_files.Type[kind])
  argv = [str(path), '--length=24', '--tolerance=2e-5']
  assert main.launch('parity', argv) == 0
  out = capsys.readouterr().out
  layers = config['num_hidden_layers']
  for site in lm.Site:
    assert out.count(f'\n{site} ') == layers
  assert 'logits' in out and 'beyond' not in out
