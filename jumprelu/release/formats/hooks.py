"""What other libraries call a site -> layer, site, and a transcoder's gain."""

import re

from jumprelu.release import layout
from jumprelu.release.formats.record import Origin

# The layer and the rest of a TransformerLens or Hugging Face name.
_LAYER = re.compile(
    r'(?:blocks|(?:model\.)?(?:language_model\.)?layers)\.(\d+)\.'
)
# What stands in a block's names before the residual stream enters it.
_RESID_PRE = re.compile(r'blocks\.(\d+)\.hook_resid_pre')

# Models as other libraries call them, without an organisation.
_MODEL = re.compile(r'(?:google/)?gemma-2-(2b|9b|27b)(-it)?')


def origin_of(source: str, target: str | None = None) -> Origin:
  """Returns what a hook point, or a transcoder's two, say; nothing if unknown.

  Names of TransformerLens (`blocks.3.hook_resid_post`) and of Hugging Face's
  modules (`model.layers.3.output`) are those that a release of ours lists.
  """
  before = _RESID_PRE.fullmatch(source)
  if before and int(before[1]) and target in (None, source):
    return Origin(layer=int(before[1]) - 1, site='resid_post')
  match = _LAYER.match(source)
  if not match:
    return Origin()
  layer = int(match[1])
  # Models for text and images have their layers one module deeper.
  names = tuple(
      name.replace('language_model.', '') for name in (source, target or source)
  )
  for site in layout.SITES:
    for gain in (True, False) if site == 'transcoder' else (None,):
      known = layout.hooks(site, layer=layer, input_gain=gain)
      for library in ('transformer_lens', 'huggingface'):
        wanted = known['input'][library], known['target'][library]
        if names == wanted:
          return Origin(layer=layer, site=site, input_gain=gain)
  return Origin(layer=layer)


def model_of(name: str) -> str | None:
  """Returns our name of a Gemma 2 model, None for any other."""
  match = _MODEL.fullmatch(name)
  return f'gemma2_{match[1]}{"_it" if match[2] else ""}' if match else None
