"""Gemma-2-shaped language models: activations, splices and losses."""

from jumprelu.lm.config import MODELS, LmConfig
from jumprelu.lm.gemma import attention_mask
from jumprelu.lm.loss import target_mask
from jumprelu.lm.model import (
    LanguageModel,
    activations,
    get_config,
    input_gain,
    load,
    logits,
    losses,
    prefix,
    self_check,
)
from jumprelu.lm.sites import Site, Tap

__all__ = [
    'LanguageModel',
    'LmConfig',
    'MODELS',
    'Site',
    'Tap',
    'activations',
    'attention_mask',
    'get_config',
    'input_gain',
    'load',
    'logits',
    'losses',
    'prefix',
    'self_check',
    'target_mask',
]
