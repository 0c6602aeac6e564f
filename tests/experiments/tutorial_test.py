"""The stored outputs of the tutorial; `run/demo_test.py` executes it."""

import nbformat
import numpy as np
import pytest

from experiments import tutorial
from tests.lm import huggingface_folders


def test_every_cell_of_code_was_executed_in_order():
  notebook = nbformat.read(tutorial.PATH, as_version=4)
  cells = [c for c in notebook.cells if c.cell_type == 'code']
  assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
  assert all(c.outputs for c in cells)
  assert not any(o.output_type == 'error' for c in cells for o in c.outputs)


def test_the_outputs_name_no_path_of_a_machine():
  text = tutorial.PATH.read_text('utf-8')
  assert '/home/' not in text and '/tmp/' not in text and '/root/' not in text


@pytest.mark.slow
def test_with_two_lines_changed_it_reads_gemma_2_and_gemma_scope(tmp_path):
  _write_model(tmp_path / 'gemma-2-tiny')
  _write_sae(tmp_path / 'gemma-scope-2b-pt-res/layer_1/width_1k/average_l0_20')
  notebook = tutorial.execute(
      tmp_path,
      {
          "jumprelu.load('jumprelu_demo/release')": (
              "jumprelu.load('gemma-scope-2b-pt-res', model='gemma-2-tiny')"
          ),
          'sae.load_lm()': "jumprelu.load_lm('gemma-2-tiny')",
      },
  )
  shown = [o for c in notebook.cells for o in c.get('outputs', [])]
  assert 'resid_post  1      1024' in shown[0]['data']['text/plain']


def _write_model(folder):
  """Writes a random Gemma 2 with the tokenizer of the embedded model."""
  config = huggingface_folders.CONFIGS['2b'] | {
      'vocab_size': 4096,
      'sliding_window': 32,
      'max_position_embeddings': 512,
  }
  huggingface_folders.write(folder, config)
  huggingface_folders.add_tokenizer(folder)


def _write_sae(folder):
  """Writes an SAE of the random model as Gemma Scope's files."""
  rng = np.random.default_rng(0)
  W_dec = rng.normal(size=(1024, 16)).astype(np.float32)
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  folder.mkdir(parents=True)
  np.savez(
      folder / 'params.npz',
      W_enc=W_dec.T,
      W_dec=W_dec,
      b_enc=np.zeros(1024, np.float32),
      b_dec=np.zeros(16, np.float32),
      threshold=np.full(1024, 1.0, np.float32),
  )
