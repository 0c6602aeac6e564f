"""The finetuned model: the learned tokens and the written folder."""

import dataclasses

import jax
import numpy as np

from experiments.nano import finetune_nano
from jumprelu import lm
from jumprelu.data import packing
from jumprelu.lm import weights
from tests.lm import tiny

_TURN = (7, 8)


@jax.jit
def _in_answer(rows):
  return finetune_nano.in_answer(rows, _TURN)


def test_only_the_model_s_first_turn_is_learned():
  wrap = packing.Wrap(prefix=(5,), suffix=_TURN, eos=False)
  chat = [20, 21, *_TURN, 30, 31]
  (row,) = packing.pack([chat, [22, *_TURN, 32]], 20, wrap=wrap)
  # BOS 5 20 21 7 8 30 31 7 8 BOS 5 22 7 8 32 7 8 PAD PAD
  mask = np.asarray(_in_answer(row[None]))[0]
  learned = [int(token) for token in row[1:][mask[:-1]]]
  assert learned == [30, 31, *_TURN, 32, *_TURN]
  assert not mask[-1]


def test_a_turn_ends_at_the_next_turn_or_at_the_end_of_the_row():
  rows = np.array(
      [
          [2, 20, 7, 8, 30, 7, 8, 40],
          [2, 20, 21, 22, 23, 24, 7, 8],
          [2, 8, 30, 31, 32, 33, 34, 35],
      ]
  )
  mask = np.asarray(_in_answer(rows))
  expected = np.zeros(rows.shape, bool)
  # The next tokens are 30 and the two tokens that end the turn.
  expected[0, 3:6] = True
  np.testing.assert_array_equal(mask, expected)


def _params(config):
  """Returns random parameters by their path in the package's tree."""
  d, f, n, k = config.d_model, config.ffw, config.heads, config.kv_heads
  h = config.head_dim
  layer = {
      'attn/q_einsum/w': (n, d, h),
      'attn/kv_einsum/w': (2, k, d, h),
      'attn/attn_vec_einsum/w': (n, h, d),
      'mlp/gating_einsum': (2, d, f),
      'mlp/linear': (f, d),
      'pre_attention_norm/scale': (d,),
      'post_attention_norm/scale': (d,),
      'pre_ffw_norm/scale': (d,),
      'post_ffw_norm/scale': (d,),
  }
  shapes = {
      'embedder/input_embedding': (config.vocab, d),
      'final_norm/scale': (d,),
  } | {
      f'layer_{i}/{name}': shape
      for i in range(config.layers)
      for name, shape in layer.items()
  }
  rng = np.random.default_rng(0)
  return {
      name: rng.normal(size=shape).astype(np.float32)
      for name, shape in shapes.items()
  }


def test_the_written_folder_is_read_as_the_same_model(tmp_path):
  params = _params(tiny.CONFIG)
  finetune_nano.write_huggingface(
      tiny.CONFIG, weights.unflatten(params), tmp_path
  )
  model_files = lm.find(str(tmp_path))
  # Hugging Face stores gate and up projections transposed, and the reader keeps
  # this layout.
  assert model_files.config == dataclasses.replace(
      tiny.CONFIG, name=model_files.config.name, transposed_gating=True
  )
  reader = model_files.open()
  for name, expected in params.items():
    if name.endswith('gating_einsum'):
      expected = expected.transpose(0, 2, 1)
    np.testing.assert_array_equal(reader.tensor(name), expected, name)
