"""Other people's training steps, as turns: unmodified, from their packages.

Each does what its own trainer does in a step, with the same batches, weights,
thresholds and bandwidth. Where a step of theirs is another one than ours:

  saelens              clips the global norm of gradients; no unit norm
  dictionary_learning  clips it; target L0 penalty, on latents that the JumpReLU
                       has already cut
  sparsify             TopK with k = L0: another algorithm; no thresholds

In bfloat16 each does what its own option for that does, which is not the same:
SAELens' pre-activations, for one, are then rounded too.
"""

from collections.abc import Callable
import functools
import importlib
import sys
import types
from typing import Any

import numpy as np
import torch

from experiments.benchmarking import problem as problem_lib

_MODULES = {
    'saelens': ('sae_lens.training.sae_trainer',),
    'dictionary_learning': ('dictionary_learning.trainers.jumprelu',),
    'sparsify': ('sparsify.sparse_coder',),
}

# Reads L0 and loss of a step.
Read = Callable[[], tuple[float, float]]
Turn = Callable[[int], Read]


class Memory:
  """Memory of tensors on a GPU, in bytes."""

  imports = 0

  def reset(self) -> None:
    """Forgets the peak."""
    torch.cuda.reset_peak_memory_stats()

  def peak(self) -> int:
    """Returns the most that there was since `reset`."""
    return torch.cuda.max_memory_allocated()


def load(name: str) -> None:
  """Imports a peer's packages."""
  # dictionary_learning imports this for a buffer of activations, which has no
  # part here.
  buffer = types.ModuleType('nnsight')
  buffer.LanguageModel = object
  sys.modules.setdefault('nnsight', buffer)
  for module in _MODULES[name]:
    importlib.import_module(module)


def make(
    name: str,
    problem: dict[str, np.ndarray],
    *,
    device: str,
    precision: str,
) -> Turn:
  """Makes the turns of a peer."""
  place = {'cpu': 'cpu', 'gpu': 'cuda'}[device]
  # No TF32, nor anything else that is less than float32.
  torch.set_float32_matmul_precision('highest')
  l0 = int(problem['l0'])
  given = {
      k: torch.from_numpy(v).to(place) for k, v in problem.items() if v.ndim
  }
  problem.clear()
  x = given.pop('x')
  given['W_enc'] = given['W_dec'].T
  made = {
      'saelens': _saelens,
      'dictionary_learning': _dictionary_learning,
      'sparsify': _sparsify,
  }[name]
  step = made(given, batch=x.shape[1], l0=l0, rounded=precision == 'bfloat16')
  given.clear()

  def turn(count: int) -> Read:
    read = None
    for i in range(count):
      read = None  # Or what it reads would be in memory with the next step.
      read = step(x[i % len(x)])
    if place == 'cuda':
      torch.cuda.synchronize()
    return read

  return turn


def gradient_error(name: str, problem: Any) -> float:
  """Peers are not ours to correct."""
  del name, problem
  return float('nan')


def _fill(module: Any, values: dict[str, torch.Tensor]) -> None:
  with torch.no_grad():
    for name, value in values.items():
      getattr(module, name).copy_(value)


def _saelens(
    given: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from sae_lens.config import LoggingConfig, SAETrainerConfig
  from sae_lens.saes import jumprelu_sae
  from sae_lens.training.sae_trainer import SAETrainer

  del l0
  d_model, width = given['W_enc'].shape
  place = given['W_enc'].device.type
  sae = jumprelu_sae.JumpReLUTrainingSAE(
      jumprelu_sae.JumpReLUTrainingSAEConfig(
          d_in=d_model,
          d_sae=width,
          device=place,
          jumprelu_bandwidth=problem_lib.BANDWIDTH,
          l0_coefficient=problem_lib.COEFFICIENT,
      )
  )
  _fill(sae, given)
  config = SAETrainerConfig(
      total_training_samples=10_000_000 * batch,
      train_batch_size_samples=batch,
      lr=problem_lib.LEARNING_RATE,
      lr_end=problem_lib.LEARNING_RATE,
      adam_beta1=0.0,
      device=place,
      autocast=rounded,
      logger=LoggingConfig(log_to_wandb=False),
  )
  trainer = SAETrainer(config, sae, data_provider=iter(()))

  def step(x):
    out = trainer._train_step(sae, x)

    def read():
      active = (out.feature_acts > 0).sum(-1).float().mean()
      return active.item(), out.loss.item()

    return read

  return step


def _dictionary_learning(
    given: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from dictionary_learning.trainers.jumprelu import JumpReluTrainer

  del batch
  if rounded:
    raise ValueError('dictionary_learning has no option for bfloat16')
  d_model, width = given['W_enc'].shape
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
      device=given['W_enc'].device.type,
  )
  _fill(trainer.ae, given)
  number = 0

  def step(x):
    nonlocal number
    number += 1
    loss = trainer.update(number, x)
    return lambda: (float('nan'), loss)

  return step


def _sparsify(
    given: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from sparsify.config import SparseCoderConfig
  from sparsify.sparse_coder import SparseCoder

  del batch
  width, d_model = given['W_dec'].shape
  place = given['W_dec'].device.type
  config = SparseCoderConfig(num_latents=width, k=l0)
  coder = SparseCoder(d_model, config, device=place)
  _fill(coder, {'W_dec': given['W_dec'], 'b_dec': given['b_dec']})
  _fill(coder.encoder, {'weight': given['W_enc'].T, 'bias': given['b_enc']})
  # Its forward pass is wrapped in bfloat16's autocast, on a GPU without a
  # choice: float32 is what was wrapped.
  forward = coder
  if not rounded:
    forward = functools.partial(SparseCoder.forward.__wrapped__, coder)
  rate = problem_lib.LEARNING_RATE
  optimizer = torch.optim.Adam(coder.parameters(), rate, betas=(0.0, 0.999))
  silent = torch.zeros(width, dtype=torch.long, device=place)

  def step(x):
    # What its Trainer.fit does with one hookpoint and no dead latents.
    coder.set_decoder_norm_to_unit_norm()
    out = forward(x)
    fired = torch.zeros(width, dtype=torch.bool, device=place)
    fired[out.latent_indices.flatten()] = True
    out.fvu.backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    optimizer.step()
    optimizer.zero_grad()
    nonlocal silent
    silent += len(x)
    silent[fired] = 0
    loss = out.fvu.item()  # As its trainer does, each step.
    return lambda: (float(l0), loss)

  return step
