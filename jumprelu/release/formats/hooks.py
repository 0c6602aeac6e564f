"""Names from other libraries -> layer, site, a transcoder's gain, the model."""

from collections.abc import Iterator
import re

from jumprelu import lm
from jumprelu.release import hook_names
from jumprelu.release.formats.record import Origin

# The layer and the rest of a TransformerLens or Hugging Face name.
_LAYER = re.compile(
    r'(?:blocks|(?:model\.)?(?:language_model\.)?layers)\.(\d+)\.'
)
# The residual stream before a block is the one after the block below it.
_RESID_PRE = re.compile(r'blocks\.(\d+)\.hook_resid_pre')


def origin_of(source: str, target: str | None = None) -> Origin:
  """Returns the origin that a hook point names, or a transcoder's two.

  It is empty if the name is unknown.

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
  for site in lm.SITES:
    for gain in (True, False) if site == 'transcoder' else (None,):
      if names in _known_names(site, layer, gain):
        return Origin(layer=layer, site=site, input_gain=gain)
  return Origin(layer=layer)


def _known_names(
    site: str, layer: int, gain: bool | None
) -> Iterator[tuple[str, ...]]:
  """Yields the names of input and target in every family and library."""
  for family in lm.FAMILIES:
    known = hook_names.hook_names(
        site, layer=layer, input_gain=gain, family=family
    )
    for library in ('transformer_lens', 'huggingface'):
      yield known['input'][library], known['target'][library]


def model_of(name: str) -> str | None:
  """Returns our name of a model of a known family, None for any other."""
  names = (family.model_name(name) for family in lm.FAMILIES.values())
  return next(filter(None, names), None)
