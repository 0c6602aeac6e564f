"""Trials of the peers' training steps, unmodified, from their packages.

Each peer runs the step of its own trainer on the same batches, weights,
thresholds and bandwidth. The steps differ from ours as follows:

  saelens              clips the global norm of gradients; does not normalise
                       decoder rows
  dictionary_learning  clips the norm too; computes the target-L0 penalty from
                       latents after the JumpReLU, where inactive ones are zero
  sparsify             trains TopK with k = L0, which has no thresholds

For bfloat16 each peer uses its own option. The options differ: for example,
that of SAELens also rounds pre-activations.
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

# Returns L0 and loss of a step.
Read = Callable[[], tuple[float, float]]
Trial = Callable[[int], Read]


class Memory:
  """Memory of tensors on a GPU, in bytes."""

  # Imports need no memory of the GPU.
  imports = 0

  def reset(self) -> None:
    """Resets the peak to the current memory."""
    torch.cuda.reset_peak_memory_stats()

  def peak(self) -> int:
    """Returns the peak since `reset`."""
    return torch.cuda.max_memory_allocated()


def load(name: str) -> None:
  """Imports a peer's packages."""
  # dictionary_learning imports nnsight for its activation buffer, which the
  # benchmark does not use.
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
) -> Trial:
  """Returns a function that runs trials of a peer; empties `problem`."""
  torch_device = {'cpu': 'cpu', 'gpu': 'cuda'}[device]
  # No TF32 or other precision below float32.
  torch.set_float32_matmul_precision('highest')
  l0 = int(problem['l0'])
  arrays = {
      k: torch.from_numpy(v).to(torch_device)
      for k, v in problem.items()
      if v.ndim
  }
  problem.clear()
  x = arrays.pop('x')
  arrays['W_enc'] = arrays['W_dec'].T
  make_step = {
      'saelens': _saelens,
      'dictionary_learning': _dictionary_learning,
      'sparsify': _sparsify,
  }[name]
  step = make_step(
      arrays, batch=x.shape[1], l0=l0, rounded=precision == 'bfloat16'
  )
  arrays.clear()

  def trial(count: int) -> Read:
    read = None
    for i in range(count):
      # Otherwise the tensors of a step would be in memory during the next step.
      read = None
      read = step(x[i % len(x)])
    if torch_device == 'cuda':
      torch.cuda.synchronize()
    return read

  return trial


def gradient_error(name: str, problem: Any) -> float:
  """Returns NaN, because the gradients of peers are not checked."""
  del name, problem
  return float('nan')


def _fill(module: Any, values: dict[str, torch.Tensor]) -> None:
  with torch.no_grad():
    for name, value in values.items():
      getattr(module, name).copy_(value)


def _saelens(
    arrays: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from sae_lens.config import LoggingConfig, SAETrainerConfig
  from sae_lens.saes import jumprelu_sae
  from sae_lens.training.sae_trainer import SAETrainer

  del l0
  d_model, width = arrays['W_enc'].shape
  torch_device = arrays['W_enc'].device.type
  sae = jumprelu_sae.JumpReLUTrainingSAE(
      jumprelu_sae.JumpReLUTrainingSAEConfig(
          d_in=d_model,
          d_sae=width,
          device=torch_device,
          jumprelu_bandwidth=problem_lib.BANDWIDTH,
          l0_coefficient=problem_lib.COEFFICIENT,
      )
  )
  _fill(sae, arrays)
  config = SAETrainerConfig(
      total_training_samples=10_000_000 * batch,
      train_batch_size_samples=batch,
      lr=problem_lib.LEARNING_RATE,
      lr_end=problem_lib.LEARNING_RATE,
      adam_beta1=0.0,
      device=torch_device,
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
    arrays: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from dictionary_learning.trainers.jumprelu import JumpReluTrainer

  del batch
  if rounded:
    raise ValueError('dictionary_learning has no option for bfloat16')
  d_model, width = arrays['W_enc'].shape
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
      device=arrays['W_enc'].device.type,
  )
  _fill(trainer.ae, arrays)
  number = 0

  def step(x):
    nonlocal number
    number += 1
    loss = trainer.update(number, x)
    return lambda: (float('nan'), loss)

  return step


def _sparsify(
    arrays: dict[str, torch.Tensor], *, batch: int, l0: int, rounded: bool
):
  from sparsify.config import SparseCoderConfig
  from sparsify.sparse_coder import SparseCoder

  del batch
  width, d_model = arrays['W_dec'].shape
  torch_device = arrays['W_dec'].device.type
  config = SparseCoderConfig(num_latents=width, k=l0)
  coder = SparseCoder(d_model, config, device=torch_device)
  _fill(coder, {'W_dec': arrays['W_dec'], 'b_dec': arrays['b_dec']})
  _fill(coder.encoder, {'weight': arrays['W_enc'].T, 'bias': arrays['b_enc']})
  # sparsify's forward pass is decorated with an autocast to bfloat16, which
  # cannot be disabled on a GPU. Without the decorator the pass is in float32.
  forward = coder
  if not rounded:
    forward = functools.partial(SparseCoder.forward.__wrapped__, coder)
  rate = problem_lib.LEARNING_RATE
  optimizer = torch.optim.Adam(coder.parameters(), rate, betas=(0.0, 0.999))
  silent = torch.zeros(width, dtype=torch.long, device=torch_device)

  def step(x):
    # The operations of sparsify's Trainer.fit for one hook without dead
    # latents.
    coder.set_decoder_norm_to_unit_norm()
    out = forward(x)
    fired = torch.zeros(width, dtype=torch.bool, device=torch_device)
    fired[out.latent_indices.flatten()] = True
    out.fvu.backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    optimizer.step()
    optimizer.zero_grad()
    nonlocal silent
    silent += len(x)
    silent[fired] = 0
    loss = out.fvu.item()  # sparsify's trainer also reads it at each step.
    return lambda: (float(l0), loss)

  return step
