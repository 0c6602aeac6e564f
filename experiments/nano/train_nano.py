"""Trains the nano language model, which is part of the package.

The corpus is the source of Python's standard library; a hash of the module path
selects the held-out documents. Cost: an hour on two CPU cores. This command
writes tokenizer.model, params.safetensors and MODEL_CARD.md:

    python experiments/nano/train_nano.py --out=jumprelu/lm/nano

The card compares the model's bits per byte on held-out documents with those of
`xz -9`, applied to each document separately.
"""

import functools
import lzma
import math
import pathlib
import platform
import sys
import time

from absl import app, flags, logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jumprelu.data import documents as documents_lib
from jumprelu.data import packing, sources
from jumprelu.data import tokenizer as tokenizer_lib
from jumprelu.lm import gemma, weights
from jumprelu.lm import loss as loss_lib
from jumprelu.lm import model as model_lib
from jumprelu.run import flags as flags_lib

_OUT = flags.DEFINE_string('out', 'jumprelu/lm/nano', 'Output folder.')
_STEPS = flags_lib.define_integer(
    flags.FLAGS, 'steps', 2600, 'Optimiser steps.'
)
_BATCH = flags_lib.define_integer(
    flags.FLAGS, 'batch', 8, 'Sequences per step.'
)
_LEARNING_RATE = flags.DEFINE_float(
    'learning_rate', 3e-3, 'Peak learning rate.'
)
_SEED = flags_lib.define_integer(
    flags.FLAGS, 'seed', 0, 'Seed of parameters and row order.'
)
_SAVE_EVERY = flags_lib.define_integer(
    flags.FLAGS,
    'save_every',
    250,
    'Steps between evaluations that also save the weights.',
)
_EVAL_ROWS = 128  # Held-out rows of the evaluations during training.


def read_corpus():
  """Returns the standard library, its training and its held-out documents."""
  source = sources.make_source('stdlib')
  train, held_out = [], []
  for document in source.documents():
    hold = documents_lib.is_held_out(source.split_key(document), 10)
    (held_out if hold else train).append(document)
  return source, train, held_out


def pack(documents, tokenizer, length):
  """Returns the tokenised and packed documents, int32 [rows, length]."""
  tokens = (tokenizer.encode(document.text) for document in documents)
  return np.stack(list(packing.pack(tokens, length)))


def forward_losses(config, params, tokens):
  """Returns the losses of packed rows, [sequences, positions]."""
  return loss_lib.losses(
      config,
      params,
      tokens,
      positions=packing.positions(tokens),
      segments=packing.segments(tokens),
  )


def bits_per_byte(config, params, rows, num_bytes):
  """Returns the total loss of `rows` in bits, divided by `num_bytes`."""
  losses = jax.jit(functools.partial(forward_losses, config))
  total = np.float64(0)
  for start in range(0, len(rows), 32):
    batch = rows[start : start + 32]
    batch = np.pad(batch, ((0, 32 - len(batch)), (0, 0)))
    total += np.asarray(losses(params, batch), np.float64).sum()
  return total / math.log(2) / num_bytes


def xz_bits_per_byte(documents):
  """Returns the bits per byte of `xz -9`, applied to each document."""
  texts = [document.text.encode() for document in documents]
  packed = sum(len(lzma.compress(text, preset=9)) for text in texts)
  return 8 * packed / sum(map(len, texts))


def make_optimizer(steps, learning_rate):
  """Returns AdamW with clipping, a warm-up and a cosine decay."""
  schedule = optax.warmup_cosine_decay_schedule(
      0.0, learning_rate, min(200, steps // 10 + 1), steps, learning_rate / 50
  )
  return optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=0.05),
  )


def all_targets(tokens):
  """Returns a mask of positions with a next token, [sequences, positions]."""
  return loss_lib.target_mask(packing.segments(tokens))


def make_step(config, optimizer, is_learned=all_targets):
  """Returns the jitted training step on rows [sequences, positions].

  `is_learned` maps tokens to a mask of the positions that the loss covers.
  """

  def loss_fn(params, tokens):
    losses = forward_losses(config, params, tokens)
    targets = is_learned(tokens)
    return jnp.where(targets, losses, 0).sum() / jnp.maximum(targets.sum(), 1)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, tokens):
    loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss

  return step


def init_params(config, seed):
  """Returns initial parameters: zero norm scales, matrices by fan-in."""
  module = gemma.make_module(config)
  tokens = jnp.ones((1, 4), jnp.int32)
  params = jax.jit(module.init)(jax.random.key(seed), tokens)['params']
  params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  params['embedder']['input_embedding'] = (
      jax.random.normal(
          jax.random.key(seed + 1), (config.vocab, config.d_model)
      )
      / config.d_model**0.5
  )
  return params


def row_order(num_rows, seed):
  """Yields row indices without end, every row once per epoch."""
  epoch = 0
  while True:
    yield from np.random.default_rng((seed, epoch)).permutation(num_rows)
    epoch += 1


def train(config, rows, evaluate):
  """Returns trained parameters; calls `evaluate(params, step)` regularly."""
  optimizer = make_optimizer(_STEPS.value, _LEARNING_RATE.value)
  params = init_params(config, _SEED.value)
  state = optimizer.init(params)
  step_fn = make_step(config, optimizer)
  order = row_order(len(rows), _SEED.value)
  start = time.time()
  for step in range(1, _STEPS.value + 1):
    batch = rows[[next(order) for _ in range(_BATCH.value)]]
    params, state, loss = step_fn(params, state, batch)
    if step % 50 == 0:
      rate = step * batch.size / (time.time() - start)
      eta = (_STEPS.value - step) * batch.size / rate / 60
      logging.info(
          'step %d/%d loss %.3f, %.0f tokens/s, ETA %.0f min',
          step,
          _STEPS.value,
          float(loss),
          rate,
          eta,
      )
    if step % _SAVE_EVERY.value == 0 or step == _STEPS.value:
      evaluate(params, step)
  return params


def count(params):
  """Returns the number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def write_card(out, facts):
  """Writes MODEL_CARD.md with one table row per fact."""
  lines = [
      '# gemma2_nano',
      '',
      'A language model of Python source with the complete architecture of',
      'Gemma 2 (alternating local and global attention, grouped queries, both',
      'soft caps, pre- and post-norms, tied embedding), small enough to ship',
      'with the package. It is for interpretability, not for writing code.',
      '',
      '| | |',
      '|---|---|',
  ]
  lines += [f'| {name} | {value} |' for name, value in facts.items()]
  (out / 'MODEL_CARD.md').write_text('\n'.join(lines) + '\n')


def architecture(config):
  """Returns the model's shapes in one line."""
  return (
      f'{config.layers} layers, d_model {config.d_model}, ffw {config.ffw},'
      f' {config.heads} heads of {config.head_dim} ({config.kv_heads} kv),'
      f' window {config.window}, context {config.context}, vocabulary'
      f' {config.vocab}'
  )


def training_facts(config, params, corpus, rows):
  """Returns the card's facts about the model and its training data."""
  source, train_documents, held_out = corpus
  description = source.describe()
  size = sum(len(document.text.encode()) for document in held_out)
  return {
      'Architecture': architecture(config),
      'Parameters': f'{count(params):,}',
      'Corpus': (
          'source of the standard library of Python'
          f' {description["python"]}: {description["documents"]} documents,'
          f' {description["characters"]:,} characters, digest'
          f' {description["digest"][:16]}'
      ),
      'Train': f'{len(train_documents)} documents, {rows.size:,} tokens',
      'Tokens seen': f'{_STEPS.value * _BATCH.value * config.context:,}',
      'Held out': (
          f'{len(held_out)} documents, {size:,} bytes, by a hash of the module'
          ' path'
      ),
  }


def make_tokenizer(path, documents, size):
  """Returns a tokenizer of `size` pieces, trained and written to `path`."""
  texts = (document.text for document in documents)
  return tokenizer_lib.train_tokenizer(texts, path, size)


def main(argv):
  """Trains, evaluates and writes the model and its card."""
  del argv
  logging.set_verbosity(logging.INFO)
  begin = time.time()
  config = model_lib.get_config('gemma2_nano')
  out = pathlib.Path(_OUT.value)
  corpus = read_corpus()
  _, train_documents, held_out = corpus
  tokenizer = make_tokenizer(
      out / 'tokenizer.model', train_documents, config.vocab
  )
  rows = pack(train_documents, tokenizer, config.context)
  held_out_rows = pack(held_out, tokenizer, config.context)
  held_out_bytes = sum(len(d.text.encode()) for d in held_out)
  xz = xz_bits_per_byte(held_out)
  sample = held_out_rows[:: max(1, len(held_out_rows) // _EVAL_ROWS)]
  sample_bytes = held_out_bytes * len(sample) / len(held_out_rows)

  def evaluate(params, step):
    bits = bits_per_byte(config, params, sample, sample_bytes)
    logging.info('step %d: held-out bits per byte about %.3f', step, bits)
    weights.write(params, out / 'params.safetensors', {'step': step})

  params = train(config, rows, evaluate)
  # Rounded before the final evaluation, because the release is in bfloat16.
  params = jax.tree.map(
      lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params
  )
  bits = bits_per_byte(config, params, held_out_rows, held_out_bytes)
  versions = f'Python {platform.python_version()}, jax {jax.__version__}'
  write_card(
      out,
      training_facts(config, params, corpus, rows)
      | {
          'Held-out bits per byte': f'{bits:.3f} (bfloat16 weights)',
          '`xz -9`, document by document': f'{xz:.3f}',
          'Command': f'`python {" ".join(sys.argv)}`',
          'Time': f'{(time.time() - begin) / 60:.0f} minutes',
          'Versions': versions,
      },
  )


if __name__ == '__main__':
  app.run(main)
