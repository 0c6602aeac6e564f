"""Gemma-2-shaped language models: activations, splices and losses."""

from jumprelu.lm.config import MODELS, LmConfig
from jumprelu.lm.loss import Comparison, target_mask
from jumprelu.lm.model import (
    LanguageModel,
    activations,
    compare,
    hidden,
    input_gain,
    load,
    logits,
    losses,
    prefix,
    self_check,
    unembed,
)
from jumprelu.lm.sites import SITES, Site, Tap
from jumprelu.lm.source import find, get_config, huggingface_folder

__all__ = [
    'Comparison',
    'LanguageModel',
    'LmConfig',
    'MODELS',
    'SITES',
    'Site',
    'Tap',
    'activations',
    'compare',
    'find',
    'get_config',
    'hidden',
    'huggingface_folder',
    'input_gain',
    'load',
    'logits',
    'losses',
    'prefix',
    'self_check',
    'target_mask',
    'unembed',
]
