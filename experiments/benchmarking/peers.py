"""Other people's training steps, as turns: unmodified, from their packages.

Each does what its own trainer does in a step, with the same batches, weights,
thresholds and bandwidth. Where a step of theirs is another one than ours:

  saelens              clips the global norm of gradients; no unit norm
  dictionary_learning  clips it; target L0 penalty, on latents that the JumpReLU
                       has already cut
  sparsify             TopK with k = L0: another algorithm; no thresholds
"""

from collections.abc import Callable
import sys
import types
from typing import Any

import numpy as np
import torch

from experiments.benchmarking import problem as problem_lib

Turn = Callable[[int], tuple[float, float]]


def make(name: str, problem: dict[str, np.ndarray]) -> Turn:
  """Makes the turns of a peer."""
  x = torch.from_numpy(problem.pop('x'))
  l0 = int(problem['l0'])
  made = {
      'saelens': _saelens,
      'dictionary_learning': _dictionary_learning,
      'sparsify': _sparsify,
  }[name]
  step = made(problem, batch=x.shape[1], l0=l0)
  problem.clear()

  def turn(count: int) -> tuple[float, float]:
    found = None
    for i in range(count):
      found = step(x[i % len(x)])
    return found

  return turn


def gradient_error(name: str, problem: Any) -> float:
  """Peers are not ours to correct."""
  del name, problem
  return float('nan')


def _fill(module: Any, values: dict[str, np.ndarray]) -> None:
  with torch.no_grad():
    for name, value in values.items():
      getattr(module, name).copy_(torch.from_numpy(value))


def _saelens(problem: dict[str, np.ndarray], *, batch: int, l0: int):
  from sae_lens.config import LoggingConfig, SAETrainerConfig
  from sae_lens.saes import jumprelu_sae
  from sae_lens.training.sae_trainer import SAETrainer

  del l0
  d_model, width = problem['W_enc'].shape
  sae = jumprelu_sae.JumpReLUTrainingSAE(
      jumprelu_sae.JumpReLUTrainingSAEConfig(
          d_in=d_model,
          d_sae=width,
          device='cpu',
          jumprelu_bandwidth=problem_lib.BANDWIDTH,
          l0_coefficient=problem_lib.COEFFICIENT,
      )
  )
  names = ('W_enc', 'b_enc', 'W_dec', 'b_dec')
  own = {name: problem[name] for name in names}
  _fill(sae, own | {'threshold': problem['threshold']})
  config = SAETrainerConfig(
      total_training_samples=10_000_000 * batch,
      train_batch_size_samples=batch,
      lr=problem_lib.LEARNING_RATE,
      lr_end=problem_lib.LEARNING_RATE,
      adam_beta1=0.0,
      logger=LoggingConfig(log_to_wandb=False),
  )
  trainer = SAETrainer(config, sae, data_provider=iter(()))

  def step(x):
    out = trainer._train_step(sae, x)
    active = (out.feature_acts > 0).sum(-1).float().mean()
    return active.item(), float(out.loss)

  return step


def _dictionary_learning(problem: dict[str, np.ndarray], *, batch, l0):
  # Its package imports this for a buffer of activations, which has no part here.
  buffer = types.ModuleType('nnsight')
  buffer.LanguageModel = object
  sys.modules.setdefault('nnsight', buffer)
  from dictionary_learning.trainers.jumprelu import JumpReluTrainer

  del batch
  d_model, width = problem['W_enc'].shape
  trainer = JumpReluTrainer(
      steps=10_000_000,
      activation_dim=d_model,
      dict_size=width,
      layer=0,
      lm_name='none',
      lr=problem_lib.LEARNING_RATE,
      bandwidth=problem_lib.BANDWIDTH,
      warmup_steps=0,
      sparsity_warmup_steps=None,
      target_l0=float(l0),
  )
  names = ('W_enc', 'b_enc', 'W_dec', 'b_dec', 'threshold')
  _fill(trainer.ae, {name: problem[name] for name in names})
  number = 0

  def step(x):
    nonlocal number
    number += 1
    return float('nan'), trainer.update(number, x)

  return step


def _sparsify(problem: dict[str, np.ndarray], *, batch: int, l0: int):
  from sparsify.config import SparseCoderConfig
  from sparsify.sparse_coder import SparseCoder

  del batch
  width, d_model = problem['W_dec'].shape
  coder = SparseCoder(d_model, SparseCoderConfig(num_latents=width, k=l0))
  _fill(coder, {'W_dec': problem['W_dec'], 'b_dec': problem['b_dec']})
  _fill(coder.encoder, {'weight': problem['W_enc'].T, 'bias': problem['b_enc']})
  rate = problem_lib.LEARNING_RATE
  optimizer = torch.optim.Adam(coder.parameters(), rate, betas=(0.0, 0.999))
  silent = torch.zeros(width, dtype=torch.long)

  def step(x):
    # What its Trainer.fit does with one hookpoint and no dead latents.
    coder.set_decoder_norm_to_unit_norm()
    out = coder(x)
    fired = torch.zeros(width, dtype=torch.bool)
    fired[out.latent_indices.flatten()] = True
    out.fvu.backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    optimizer.step()
    optimizer.zero_grad()
    nonlocal silent
    silent += len(x)
    silent[fired] = 0
    return float(l0), float(out.fvu)

  return step
