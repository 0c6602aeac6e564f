"""Recipes: sets of defaults for a training run, by dotted path.

`paper` has exactly the numbers of Gemma Scope (arXiv 2408.05147, section 3).
With these numbers, thresholds need hundreds of thousands of steps to move away
from their initial 0.001. In a run of thousands of steps they would barely move,
and the sparsity coefficient would not affect L0.

`short` is for runs of thousands of steps. It has a higher learning rate, a
wider kernel, and schedules whose lengths are shares of the run.

`scaled` is `short` for runs of any length. Up to 2,048 steps they are the same.
In longer runs the learning rate is divided by the square root of the run's
length in units of 2,048 steps. At the rate of `short` the encoders of rare
latents drift until they never fire, and the more steps a run has, the more
latents die (docs/training_advice.md). A run prints the learning rate, and its
config stores the number.

`paper_it` is `paper` for instruction-tuned models. It trains on the residual
stream, and each document is the user's turn of a chat.

`paper_2` has the published numbers of Gemma Scope 2 for its SAEs and
transcoders of single layers: those of `paper`, a penalty that is quadratic in
each token's L0, target L0s of 10, 50 and 150, and a warm-up of the sparsity
coefficient over 50,000 steps. Gemma Scope 2 publishes neither the number of
tokens nor the sparsity coefficient, nor the coefficient and form of its penalty
of dense latents, nor the prefixes of its Matryoshka loss. The recipe has
`paper`'s number of tokens, the variant's defaults for the penalty, and no
prefixes.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from jumprelu import saes

DEFAULT = 'short'

_PAPER: dict[str, Any] = {
    'widths': (16_384,),
    # The paper does not publish its grid; its figure 5 names 6e-4.
    'sparsity_coefficients': ('6e-4',),
    'tokens': 4_000_000_000,
    # The paper's transcoders read the norm's output before the gain.
    'input_gain': False,
    # The paper stores all arrays in float32. Its section 3.3 reports 50.8 % of
    # a TPUv3's peak, which only the default precision of products can reach.
    'matmul_precision': 'default',
    'optim.learning_rate': 7e-5,
    'optim.b2': 0.999,
    'optim.eps': 1e-8,
    'optim.lr_warmup_steps': 1000,
    'optim.lr_warmup_start': 0.1,
    'optim.lr_decay': 0.0,
    'optim.sparsity_warmup_steps': 10_000,
    'sae.jumprelu.kernel': 'rectangle',
    'sae.jumprelu.gradient_to_pre_acts': False,
    'sae.jumprelu.bandwidth': 0.001,
    'sae.jumprelu.initial_threshold': 0.001,
    'sae.jumprelu.threshold_parameter': 'log',
    'sae.jumprelu.pre_encoder_bias': True,
    'stream.batch': 4096,
    'stream.block_positions': 2**20,
    'stream.logical_shards': 256,
    'stream.scale_tokens': 2**20,
    'corpus.sequence_length': 1024,
}

_QUADRATIC = 'sae.jumprelu_quadratic'
_PAPER_2 = (
    {
        name: value
        for name, value in _PAPER.items()
        if not name.startswith('sae.')
    }
    | {
        name.replace('sae.jumprelu', _QUADRATIC): value
        for name, value in _PAPER.items()
        if name.startswith('sae.')
    }
    | {
        'variants': ('jumprelu_quadratic',),
        'target_l0': (10.0, 50.0, 150.0),
        'sparsity_coefficients': (),
        # Unlike those of the first Gemma Scope, its transcoders read the norm's
        # output with the gain.
        'input_gain': True,
        'optim.sparsity_warmup_steps': 50_000,
    }
)

# Defaults of `short` for every variant whose config has the field.
_SHORT_FIELDS: dict[str, Any] = {
    'bandwidth': 0.05,
    'initial_threshold': 0.01,
    # A latent that was silent for this number of rows does not fire again by
    # itself in a short run.
    'dead_after': 65_536,
    'threshold_decay': 0.99,
}
_SHORT_VARIANTS: dict[str, Any] = {
    f'sae.{variant}.{field.name}': _SHORT_FIELDS[field.name]
    for variant, (_, config) in saes.VARIANTS.items()
    for field in dataclasses.fields(config)
    if field.name in _SHORT_FIELDS
}

_SHORT: dict[str, Any] = {
    **_SHORT_VARIANTS,
    'sparsity_coefficients': ('1e-3', '2e-3', '4e-3'),
    # High, because at lower rates L0 has not settled when the run ends.
    'optim.learning_rate': 1e-2,
    # The second moment averages over about 330 steps, a small part of the
    # run. Over more steps the large first gradients would keep the updates
    # small. Over fewer steps rare latents would die, because most batches
    # hold only the penalty's gradient for them.
    'optim.b2': 0.997,
    'optim.lr_warmup_steps': None,
    'optim.lr_warmup_fraction': 0.02,
    'optim.lr_decay': 0.8,
    'optim.sparsity_warmup_steps': None,
    'optim.sparsity_warmup_fraction': 0.05,
    # Wide, so that a dying latent keeps a gradient for longer and can
    # recover.
    'sae.jumprelu.bandwidth': 0.1,
    # Low, because a latent that has never fired gets no gradient.
    'sae.jumprelu.initial_threshold': 0.01,
    # A single update of a linear threshold could change it by a fifth of
    # its size, which would kill latents.
    'sae.jumprelu.threshold_parameter': 'log',
    # Small, because the time in which L0 settles depends on the number of
    # steps, not on the number of tokens.
    'stream.batch': 256,
    'stream.batches_per_dispatch': 32,
    'stream.block_positions': 65_536,
    'stream.logical_shards': 16,
    'corpus.sequence_length': 256,
}

RECIPES: dict[str, dict[str, Any]] = {
    'short': _SHORT,
    # Its learning rate comes from `by_steps`.
    'scaled': _SHORT | {'tokens': 2_000_000},
    'paper': _PAPER,
    # Gemma Scope has such SAEs for the instruction-tuned 9B model, at layers 9,
    # 20 and 31.
    'paper_it': _PAPER
    | {
        'sites': ('resid_post',),
        'corpus.wrap': 'chat',
    },
    'paper_2': _PAPER_2,
}

# The number of steps up to which `scaled` is `short`.
_SHORT_STEPS = 2048


def by_steps(recipe: str, steps: int) -> dict[str, Any]:
  """Returns those values of a recipe that depend on a run's number of steps.

  Args:
    recipe: A key of `RECIPES`.
    steps: The number of steps of the run.
  """
  if recipe != 'scaled':
    return {}
  # With beta1 = 0, updates are a random walk whose length grows with the square
  # root of the number of steps.
  rate = 1e-2 / math.sqrt(max(steps / _SHORT_STEPS, 1.0))
  # With the digits that a run prints.
  return {'optim.learning_rate': float(f'{rate:.4g}')}


def merge(recipe: str, explicit: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a recipe's values with explicit ones, by dotted path.

  Explicit values also remove those values of the recipe that they exclude.

  Args:
    recipe: A key of `RECIPES`.
    explicit: Values by dotted path, as from flags.
  """
  values = {**RECIPES[recipe], **explicit, 'recipe': recipe}
  tokens, batch = values.get('tokens'), values.get('stream.batch')
  # Values of a wrong type are reported when they are set in a config.
  if type(tokens) is int and type(batch) is int and batch > 0:
    values |= {**by_steps(recipe, tokens // batch), **explicit}
  axes = ('target_l0', 'sparsity_coefficients')
  for axis, other in (axes, axes[::-1]):
    if explicit.get(axis) and other not in explicit:
      values[other] = ()
  for schedule in ('lr_warmup', 'sparsity_warmup'):
    # A number of steps takes precedence over a fraction of the run, so an
    # explicit fraction must remove the recipe's number of steps.
    if f'optim.{schedule}_fraction' in explicit:
      values.setdefault(f'optim.{schedule}_steps', None)
      if f'optim.{schedule}_steps' not in explicit:
        values[f'optim.{schedule}_steps'] = None
  return values
