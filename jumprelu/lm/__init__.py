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
    input_gains,
    load,
    logits,
    losses,
    prefix,
    self_check,
    unembed,
)
from jumprelu.lm.sites import (
    SITES,
    Reads,
    Site,
    Tap,
    all_taps,
    from_json_keys,
    make_reads,
    parse_tap,
    slices_of,
    spell,
    to_json_keys,
)
from jumprelu.lm.source import find, get_config, transformers_path

__all__ = [
    'Comparison',
    'FAMILIES',
    'Family',
    'LanguageModel',
    'LmConfig',
    'MODELS',
    'Reads',
    'SITES',
    'Site',
    'Tap',
    'activations',
    'all_taps',
    'compare',
    'family_of',
    'find',
    'from_json_keys',
    'get_config',
    'hidden',
    'input_gain',
    'input_gains',
    'load',
    'logits',
    'losses',
    'make_reads',
    'parse_tap',
    'prefix',
    'self_check',
    'slices_of',
    'spell',
    'target_mask',
    'to_json_keys',
    'transformers_path',
    'unembed',
]
