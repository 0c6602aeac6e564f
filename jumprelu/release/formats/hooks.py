"""Conversion of hook and model names of other libraries to origins."""

from collections.abc import Iterator
import re

from jumprelu import lm
from jumprelu.release import hook_names
from jumprelu.release.formats.record import Origin

# The start of a TransformerLens or Hugging Face name, which holds the layer.
_LAYER = re.compile(
    r'(?:blocks|(?:model\.)?(?:language_model\.)?layers)\.(\d+)\.'
)
# The residual stream before a block equals the one after the previous block.
_RESID_PRE = re.compile(r'blocks\.(\d+)\.hook_resid_pre')


def origin_of(source: str, target: str | None = None) -> Origin:
  """Returns the origin that hook names state.

  The known names are those in the field `hooks` of config.json in our own
  releases: names of TransformerLens (`blocks.3.hook_resid_post`) and of Hugging
  Face modules (`model.layers.3.output`). Also known are
  `blocks.4.hook_resid_pre`, which is `resid_post` of layer 3, and names of
  modules below `language_model`. An unknown name with a layer in it
  results in an origin with this layer only, any other name in an empty origin.

  Args:
    source: The hook of the SAE's input.
    target: The hook of a transcoder's target; by default `source`.
  """
  before = _RESID_PRE.fullmatch(source)
  if before and int(before[1]) and target in (None, source):
    return Origin(layer=int(before[1]) - 1, site='resid_post')
  match = _LAYER.match(source)
  if not match:
    return Origin()
  layer = int(match[1])
  # Models of text and images hold the text layers in a submodule.
  names = tuple(
      name.replace('language_model.', '') for name in (source, target or source)
  )
  for site in lm.SITES:
    for gain in (True, False) if site == 'transcoder' else (None,):
      if names in _known_names(site, layer, gain):
        return Origin(layer=layer, site=site, input_gain=gain)
  return Origin(layer=layer)


def _known_names(
    site: str, layer: int, gain: bool | None
) -> Iterator[tuple[str, ...]]:
  """Yields a site's (input, target) names, for each family and library."""
  for family in lm.FAMILIES:
    known = hook_names.hook_names(
        site, layer=layer, input_gain=gain, family=family
    )
    for library in ('transformer_lens', 'huggingface'):
      yield known['input'][library], known['target'][library]


def model_of(name: str) -> str | None:
  """Returns our name of a model, None if no family recognises the name."""
  names = (family.model_name(name) for family in lm.FAMILIES.values())
  return next(filter(None, names), None)
