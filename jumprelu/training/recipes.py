"""Recipes: sets of defaults for a training run, by dotted path.

`paper` is Gemma Scope's (arXiv 2408.05147, section 3), to the number. It moves
thresholds from 0.001 over hundreds of thousands of steps; in a run of
thousands they would not move, and L0 would not feel lambda. `short` is for
those: higher rates, a wider kernel, and schedules that are shares of the run.
`paper_it` is `paper` for instruction-tuned models: each document is the user's
turn of a chat.
"""

import dataclasses
from typing import Any

from jumprelu import saes

DEFAULT = 'short'

_PAPER: dict[str, Any] = {
    'widths': (16_384,),
    # The paper's grid is not published; 6e-4 is named in its figure 5.
    'sparsity_coefficients': ('6e-4',),
    'tokens': 4_000_000_000,
    # Its transcoders read the norm's output before the gain.
    'input_gain': False,
    # Everything is stored in float32; the 50.8 % of a TPUv3's peak that
    # section 3.3 reports leave room for its default products only.
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

# What the other variants need in a run of thousands of steps, if they have it.
_SHORT_FIELDS: dict[str, Any] = {
    'bandwidth': 0.05,
    'initial_threshold': 0.01,
    # A latent that was silent for so many rows would be for the whole run.
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
        # High: that L0 has settled when the run ends takes this much.
        'optim.learning_rate': 1e-2,
        # Adam's memory: short beside the run, or the gradients of the first
        # steps keep the later ones small; but not shorter, or steps follow what
        # most batches say, which for a rare latent is only its cost: it dies.
        'optim.b2': 0.997,
        'optim.lr_warmup_steps': None,
        'optim.lr_warmup_fraction': 0.02,
        'optim.lr_decay': 0.8,
        'optim.sparsity_warmup_steps': None,
        'optim.sparsity_warmup_fraction': 0.05,
        # Wide: a latent on its way out is felt for longer and can come back.
        'sae.jumprelu.bandwidth': 0.1,
        # Low: latents that never fired cannot be moved by anything.
        'sae.jumprelu.initial_threshold': 0.01,
        # Linear ones take steps of a fifth of their size: latents die of it.
        'sae.jumprelu.threshold_parameter': 'log',
        # Small batches: at a given number of tokens L0 settles by steps.
        'stream.batch': 256,
        'stream.batches_per_dispatch': 32,
        'stream.block_positions': 65_536,
        'stream.logical_shards': 16,
        'corpus.sequence_length': 256,
    },
    'paper': _PAPER,
    # Gemma Scope's for the instruction-tuned 9B, layers 9, 20 and 31.
    'paper_it': _PAPER
    | {
        'sites': ('resid_post',),
        'corpus.wrap': 'chat',
    },
}
