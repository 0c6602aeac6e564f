"""Finetunes the embedded model on chats, to transfer SAEs to a chat model.

Gemma Scope (arXiv 2408.05147, figure 8) applies SAEs of the base model to the
instruction-tuned Gemma 2. Here the embedded model learns to answer the source
of a function with a description (`chats.py`). The loss covers the answers only.
The chats are about the modules of the standard library on which the base model
was trained, so that its held-out modules remain held out. Cost: a minute on two
CPU cores.

The output is a folder in Hugging Face's format, for `--model=DIR`. Its file
answers.json has the loss (nats per token) of answers about held-out modules,
before and after finetuning.
"""

import functools
import itertools
import json
import pathlib
import shutil
from typing import Any

from experiments.nano import chats, huggingface_config, texts

_BATCH = 8
_LEARNING_RATE = 1e-3
_SEED = 0
_EVAL_ROWS = 64


def make(name: str, folder: pathlib.Path, steps: int) -> None:
  """Writes the folder of the embedded model, finetuned for `steps` steps."""
  from jumprelu import data, lm
  from jumprelu.data import corpus

  del name
  model = lm.load('gemma2_nano')
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  wrap = corpus.make_wrap(tokenizer, data.Config(wrap='chat'))
  train, held_out = texts.standard_library()
  rows, unseen = (
      _pack(documents, tokenizer, wrap, model.config.context)
      for documents in (train, held_out)
  )
  params, losses = _finetune(model, rows, unseen[:_EVAL_ROWS], wrap, steps)
  write_huggingface(model.config, params, folder)
  shutil.copy(model.tokenizer_path, folder / 'tokenizer.model')
  facts = {'steps': steps, 'before': losses[0], 'after': losses[1]}
  (folder / 'answers.json').write_text(json.dumps(facts))


def _pack(documents, tokenizer, wrap, length):
  """Returns packed chats about the documents, int32 [rows, length]."""
  import numpy as np

  from jumprelu.data import packing

  tokens = tokenizer.encode_batch(list(chats.about(documents)))
  return np.stack(list(packing.pack(tokens, length, wrap=wrap)))


def _finetune(model, rows, unseen, wrap, steps):
  """Returns the parameters, and the loss on unseen answers before and after."""
  import jax
  import jax.numpy as jnp

  from experiments.nano import train_nano

  is_learned = functools.partial(in_answer, turn=wrap.suffix)

  @jax.jit
  def answers_loss(params, tokens):
    losses = train_nano.forward_losses(model.config, params, tokens)
    mask = is_learned(tokens)
    return jnp.where(mask, losses, 0).sum() / mask.sum()

  optimizer = train_nano.make_optimizer(steps, _LEARNING_RATE)
  step = train_nano.make_step(model.config, optimizer, is_learned)
  params, state = model.params, optimizer.init(model.params)
  before = float(answers_loss(params, unseen))
  order = train_nano.row_order(len(rows), _SEED)
  for _ in range(steps):
    batch = rows[list(itertools.islice(order, _BATCH))]
    params, state, _ = step(params, state, batch)
  return params, (before, float(answers_loss(params, unseen)))


def in_answer(tokens: Any, turn: tuple[int, ...]) -> Any:
  """Returns a mask of positions whose next token is in the model's first turn.

  Args:
    tokens: Rows of packed chats, [sequences, positions].
    turn: The tokens that end the user's turn and start the model's turn.
  """
  import jax.numpy as jnp

  from jumprelu.data import packing

  tokens = jnp.asarray(tokens)
  width = tokens.shape[1]
  padded = jnp.pad(tokens, ((0, 0), (len(turn) - 1, 0)))
  ends = jnp.ones(tokens.shape, bool)
  for i, token in enumerate(turn):
    ends &= padded[:, i : i + width] == token
  # The numbers of `turn`s up to each position, and before its document, in a
  # row.
  count = jnp.cumsum(ends, axis=1)
  segments = packing.segments(tokens)
  new = jnp.diff(segments, axis=1, prepend=0) != 0
  before = jnp.where(new, count - ends, 0)
  before = jnp.maximum.accumulate(before, axis=1)
  same = jnp.pad(segments[:, 1:] == segments[:, :-1], ((0, 0), (0, 1)))
  return (count - before == 1) & same & (segments > 0)


def write_huggingface(config: Any, params: Any, folder: pathlib.Path) -> None:
  """Writes config.json and model.safetensors, in float32, to `folder`."""
  import numpy as np
  from safetensors import numpy as safetensors

  from jumprelu.lm import weights

  flat = {
      k: np.asarray(v, np.float32) for k, v in weights.flatten(params).items()
  }
  tensors = {
      'model.embed_tokens.weight': flat['embedder/input_embedding'],
      'model.norm.weight': flat['final_norm/scale'],
  }
  for number in range(config.layers):
    for name, value in _layer(config, flat, f'layer_{number}').items():
      tensors[f'model.layers.{number}.{name}.weight'] = value
  safetensors.save_file(
      {name: np.ascontiguousarray(value) for name, value in tensors.items()},
      folder / 'model.safetensors',
      metadata={'format': 'pt'},  # Which transformers requires.
  )
  (folder / 'config.json').write_text(
      json.dumps(huggingface_config.fields_of(config))
  )


def _layer(config, flat, layer):
  """Returns a layer's tensors with the names and shapes of Hugging Face."""

  def projection(w):  # [heads, model, head_dim] -> [heads * head_dim, model]
    return w.transpose(0, 2, 1).reshape(-1, config.d_model)

  key, value = flat[f'{layer}/attn/kv_einsum/w']
  gate, up = flat[f'{layer}/mlp/gating_einsum']
  output = flat[f'{layer}/attn/attn_vec_einsum/w']
  norms = {
      'input_layernorm': 'pre_attention_norm',
      'post_attention_layernorm': 'post_attention_norm',
      'pre_feedforward_layernorm': 'pre_ffw_norm',
      'post_feedforward_layernorm': 'post_ffw_norm',
  }
  return {
      'self_attn.q_proj': projection(flat[f'{layer}/attn/q_einsum/w']),
      'self_attn.k_proj': projection(key),
      'self_attn.v_proj': projection(value),
      'self_attn.o_proj': output.reshape(-1, config.d_model).T,
      'mlp.gate_proj': gate.T,
      'mlp.up_proj': up.T,
      'mlp.down_proj': flat[f'{layer}/mlp/linear'].T,
  } | {theirs: flat[f'{layer}/{ours}/scale'] for theirs, ours in norms.items()}
