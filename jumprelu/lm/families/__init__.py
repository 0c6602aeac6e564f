"""Families of language models, as data in one table.

Another family needs a file like `gemma3.py` and an entry in `FAMILIES`. The
forward pass (`lm.gemma`) depends only on `LmConfig` and the family's record.
"""

from jumprelu.lm import config as config_lib
from jumprelu.lm.families import gemma2, gemma3
from jumprelu.lm.families.family import (
    Conversion,
    Family,
    Gguf,
    HookNames,
    HuggingFace,
    Matrices,
    Orbax,
    ReadFields,
    SpecialIds,
    split_layer,
)

__all__ = [
    'Conversion',
    'FAMILIES',
    'Family',
    'Gguf',
    'HookNames',
    'HuggingFace',
    'MODELS',
    'Matrices',
    'Orbax',
    'ReadFields',
    'SpecialIds',
    'family_of',
    'spell_models',
    'split_layer',
]

# Families by name.
FAMILIES: dict[str, Family] = {
    family.name: family for family in (gemma2.FAMILY, gemma3.FAMILY)
}

# Released models by name.
MODELS: dict[str, config_lib.LmConfig] = {
    config.name: config
    for family in FAMILIES.values()
    for config in family.models
}


def family_of(config: config_lib.LmConfig) -> Family:
  """Returns the family of a model.

  Raises:
    ValueError: if there is no such family.
  """
  if config.family not in FAMILIES:
    raise ValueError(
        f'family={config.family!r} of {config.name}: must be one of'
        f' {", ".join(FAMILIES)}'
    )
  return FAMILIES[config.family]


def spell_models() -> str:
  """Returns the names of released models for a help text, by family."""
  parts = []
  for family in FAMILIES.values():
    names = [model.name for model in family.models]
    tuned = [n for n in names if f'{n}_it' in names]
    parts += [n for n in names if n not in tuned and not n.endswith('_it')]
    sizes = (n.removeprefix(f'{family.name}_') for n in tuned)
    parts.append(f'{family.name}_{{{",".join(sizes)}}}[_it]')
  return ', '.join(parts)
