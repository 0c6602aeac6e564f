"""Recipes: sets of defaults for a training run, by dotted path.

`paper` has exactly the numbers of Gemma Scope (arXiv 2408.05147, section 3).
Its thresholds move away from 0.001 over hundreds of thousands of steps. In a
run of thousands of steps they would barely move, and lambda would not affect
L0. `short` is for such runs: higher rates, a wider kernel, and schedules that
are shares of the run. `paper_it` is `paper` for instruction-tuned models: each
document is the user's turn of a chat.
"""

import dataclasses
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
    # The paper stores everything in float32. The 50.8 % of a TPUv3's peak that
    # section 3.3 reports can be reached at the default precision only.
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

# Numbers for a run of thousands of steps, for each variant with such a field.
_SHORT_FIELDS: dict[str, Any] = {
    'bandwidth': 0.05,
    'initial_threshold': 0.01,
    # A latent that is silent for this number of rows stays silent in a short
    # run.
    'dead_after': 65_536,
    'threshold_decay': 0.99,
}
_SHORT_VARIANTS: dict[str, Any] = {
    f'sae.{variant}.{field.name}': _SHORT_FIELDS[field.name]
    for variant, (_, config) in saes.VARIANTS.items()
    for field in dataclasses.fields(config)
    if field.name in _SHORT_FIELDS
}

RECIPES: dict[str, dict[str, Any]] = {
    'short': {
        **_SHORT_VARIANTS,
        'sparsity_coefficients': ('1e-3', '2e-3', '4e-3'),
        # High, because at lower rates L0 has not settled when the run ends.
        'optim.learning_rate': 1e-2,
        # Adam's memory is short compared with the run, because otherwise the
        # large gradients of the first steps would keep later steps small. With
        # a shorter memory rare latents would die, because most batches hold
        # only the penalty's gradient for them.
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
        # Steps of a linear threshold would be a fifth of its size, which kills
        # latents.
        'sae.jumprelu.threshold_parameter': 'log',
        # Small, because L0 settles with the number of steps, not of tokens.
        'stream.batch': 256,
        'stream.batches_per_dispatch': 32,
        'stream.block_positions': 65_536,
        'stream.logical_shards': 16,
        'corpus.sequence_length': 256,
    },
    'paper': _PAPER,
    # As Gemma Scope's SAEs for the instruction-tuned 9B, layers 9, 20 and 31.
    'paper_it': _PAPER
    | {
        'sites': ('resid_post',),
        'corpus.wrap': 'chat',
    },
}
