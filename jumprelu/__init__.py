r"""Training, evaluation, release and exploration of suites of JumpReLU SAEs.

>>> import jumprelu
>>> suite = jumprelu.load('jumprelu_demo/release')
>>> sae = suite['resid_post', 28]
>>> lm = sae.load_lm()
>>> acts = lm.run('with open(path) as f:\n    return f.', sae=sae)

The names below are the public API. Each is imported when it is first used, so
that importing the package is fast: gemma, TensorFlow and matplotlib are loaded
only by the functions that need them.
"""

import importlib
from typing import Any

__version__ = '0.1.0'

# Public name -> its module, and its name there.
_PUBLIC = {
    'Edit': ('api.edits', 'Edit'),
    'LanguageModel': ('api.language_model', 'LanguageModel'),
    'SAE': ('api.sae', 'SAE'),
    'SITES': ('lm', 'SITES'),
    'Site': ('lm', 'Site'),
    'Suite': ('api.suite', 'Suite'),
    'Tap': ('lm', 'Tap'),
    'VARIANTS': ('saes', 'VARIANTS'),
    'collect_features': ('api.commands', 'collect_features'),
    'evaluate_suite': ('api.commands', 'evaluate_suite'),
    'load': ('api.loading', 'load'),
    'load_lm': ('api.models', 'load_lm'),
    'read_metrics': ('api.commands', 'read_metrics'),
    'trace': ('api.tracing', 'trace'),
    'train_suite': ('api.commands', 'train_suite'),
    'verify_release': ('release.verify', 'verify_release'),
    'write_release': ('api.commands', 'write_release'),
}

__all__ = [
    'Edit',
    'LanguageModel',
    'SAE',
    'SITES',
    'Site',
    'Suite',
    'Tap',
    'VARIANTS',
    'collect_features',
    'evaluate_suite',
    'load',
    'load_lm',
    'read_metrics',
    'trace',
    'train_suite',
    'verify_release',
    'write_release',
]


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _PUBLIC[name]
  value = getattr(importlib.import_module(f'{__name__}.{module}'), attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_PUBLIC})
