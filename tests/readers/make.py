"""Writes the files that the tests of readers need, from the output of a demo.

    python -m tests.readers.make --demo=jumprelu_demo --out=DIR

This needs the extra `train`, which the environment of the readers lacks.

    DIR/model             the embedded model in Hugging Face's format
    DIR/rows.npy          rows of token ids, each a passage of the demo's text
    DIR/activations.npz   our activations and logits on the first rows
    DIR/saebench.jsonl    our measure `saebench` of each SAE on the rows
"""

import argparse
import json
import pathlib
import shutil

import numpy as np
from safetensors import numpy as safetensors

from jumprelu import evals, lm
from jumprelu.data import packing
from jumprelu.evals import parity
from jumprelu.features import reading
from jumprelu.files import json_files
from jumprelu.release.exports import source
from tests.lm import huggingface_folders

MODEL = 'gemma2_nano'
ROWS, SEQUENCES, POSITIONS = 32, 8, 64
# Rows whose activations are written.
FIRST = 2


def write(demo: pathlib.Path, out: pathlib.Path) -> None:
  """Writes the files."""
  # The environment of the readers, which imports this module, lacks packages
  # that an evaluation needs.
  from jumprelu.evals import evaluate
  from tests.evals import peers

  out.mkdir(parents=True)
  model = lm.load(MODEL)
  write_model(model, out / 'model')
  rows = _rows(demo / 'features')
  np.save(out / 'rows.npy', rows)
  np.savez(out / 'activations.npz', **parity.ours(model, rows[:FIRST]))
  sources = [s for s in source.read(demo / 'release') if not s.transcodes]
  members = [
      evaluate.EvalMember(
          s.released.sae,
          s.released.params,
          lm.make_reads(str(s.released.origin.site), s.released.origin.layer),
          {'path': s.path},
      )
      for s in sources
  ]
  evaluated = evaluate.evaluate_members(
      model,
      members,
      held_out=peers.Rows(rows),
      config=evals.Config(lm_sequences=SEQUENCES),
      measures=('saebench',),
  )
  for row in evaluated.rows:
    json_files.append_line(out / 'saebench.jsonl', row)


def _rows(features: pathlib.Path) -> np.ndarray:
  """Returns rows of BOS and a passage without special tokens."""
  passages = reading.read_texts(features)['tokens'].to_pylist()
  rows = [
      [packing.BOS, *passage[: POSITIONS - 1]]
      for passage in passages
      if len(passage) >= POSITIONS - 1 and min(passage) > packing.UNK
  ]
  if len(rows) < SEQUENCES:
    raise ValueError(f'{features}: only {len(rows)} passages are long enough')
  count = min(ROWS, len(rows) // SEQUENCES * SEQUENCES)
  return np.asarray(rows[:count], np.int32)


def write_model(model: lm.LanguageModel, folder: pathlib.Path) -> None:
  """Writes the embedded model in Hugging Face's format, with its tokenizer."""
  config = model.config
  fields = huggingface_folders.CONFIGS['2b'] | {
      'vocab_size': config.vocab,
      'hidden_size': config.d_model,
      'intermediate_size': config.ffw,
      'num_attention_heads': config.heads,
      'num_key_value_heads': config.kv_heads,
      'head_dim': config.head_dim,
      'num_hidden_layers': config.layers,
      'sliding_window': config.window,
      'max_position_embeddings': config.context,
      'query_pre_attn_scalar': config.head_dim,
  }
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(fields))
  arrays = {
      'model.embed_tokens.weight': model.params['embedder']['input_embedding'],
      'model.norm.weight': model.params['final_norm']['scale'],
  }
  for layer in range(config.layers):
    for name, value in _layer(model.params[f'layer_{layer}']).items():
      arrays[f'model.layers.{layer}.{name}.weight'] = value
  safetensors.save_file(
      {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()},
      folder / 'model.safetensors',
      metadata={'format': 'pt'},
  )
  shutil.copy(
      pathlib.Path(lm.__file__).parent / 'nano' / 'tokenizer.model',
      folder / 'tokenizer.model',
  )


def _layer(params):
  """Returns a layer's tensors by Hugging Face's names."""
  attention, mlp = params['attn'], params['mlp']

  def stacked(w):  # [heads, model, head_dim] -> [heads * head_dim, model]
    w = np.asarray(w)
    return w.transpose(0, 2, 1).reshape(-1, w.shape[1])

  keys, values = attention['kv_einsum']['w']
  output = np.asarray(attention['attn_vec_einsum']['w'])
  gate, up = (np.asarray(w).T for w in mlp['gating_einsum'])
  tensors = {
      'self_attn.q_proj': stacked(attention['q_einsum']['w']),
      'self_attn.k_proj': stacked(keys),
      'self_attn.v_proj': stacked(values),
      'self_attn.o_proj': output.reshape(-1, output.shape[-1]).T,
      'mlp.gate_proj': gate,
      'mlp.up_proj': up,
      'mlp.down_proj': np.asarray(mlp['linear']).T,
  }
  norms = {
      'input_layernorm': 'pre_attention_norm',
      'post_attention_layernorm': 'post_attention_norm',
      'pre_feedforward_layernorm': 'pre_ffw_norm',
      'post_feedforward_layernorm': 'post_ffw_norm',
  }
  return tensors | {k: params[v]['scale'] for k, v in norms.items()}


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  for flag in ('demo', 'out'):
    parser.add_argument(f'--{flag}', type=pathlib.Path, required=True)
  write(**vars(parser.parse_args()))
