"""Language models: families, shapes, activations, splices and losses."""

from jumprelu.lm.config import LmConfig
from jumprelu.lm.families import FAMILIES, MODELS, Family, family_of
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
    'FAMILIES',
    'Family',
    'LanguageModel',
    'LmConfig',
    'MODELS',
    'SITES',
    'Site',
    'Tap',
    'activations',
    'compare',
    'family_of',
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
