"""Conversion of hook and model names of other libraries to origins."""

from collections.abc import Iterator
import re

from jumprelu import lm
from jumprelu.release import hook_names
from jumprelu.release.formats.record import Origin

# The start of a TransformerLens or Hugging Face name, which holds the layer.
_LAYER = re.compile(
    r'(?:blocks|(?:model\.)?(?:language_model\.)?layers)\.(\d{1,6})\.'
)
# The residual stream before a block equals the one after the previous block.
_RESID_PRE = re.compile(r'blocks\.(\d{1,6})\.hook_resid_pre')
# TransformerLens's name of the MLP's input with the norm's gain, which only its
# TransformerBridge has.
_MLP_IN = 'blocks.{layer}.mlp.hook_in'
_PUBLIC = re.compile(r'gemma([23])_(\d+[bm])(_it)?')


def origin_of(source: str, target: str | None = None) -> Origin:
  """Returns the origin that hook names state.

  The known names are those in the field `hooks` of config.json in our own
  releases: names of TransformerLens (`blocks.3.hook_resid_post`) and of Hugging
  Face modules (`model.layers.3.output`). Also known are
  `blocks.4.hook_resid_pre`, which is `resid_post` of layer 3,
  `blocks.3.mlp.hook_in`, and names of modules below `language_model`. An
  unknown name with a layer in it results in an origin with this layer only, any
  other name in an empty origin.

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
  if names == (_MLP_IN.format(layer=layer), f'blocks.{layer}.hook_mlp_out'):
    return Origin(layer=layer, site='transcoder', input_gain=True)
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


def public_name(model: str) -> str | None:
  """Returns a model's name on Hugging Face without `google/`; None if unknown.

  TransformerLens has the same names.
  """
  match = _PUBLIC.fullmatch(model_of(model) or model)
  if not match:
    return None
  generation, size, tuned = match.groups()
  suffix = '-it' if tuned else ''
  # The names of the smallest and of all older pretrained models have no suffix.
  if generation == '3' and not tuned and size != '270m':
    suffix = '-pt'
  return f'gemma-{generation}-{size}{suffix}'


def hooks_of(origin: Origin) -> dict[str, tuple[str, str | None]]:
  """Returns the hooks (input, target) of a complete origin, by library.

  The target is None for SAEs that are not transcoders. Libraries in which the
  input is no hook are left out: in Hugging Face's modules, the input of a
  transcoder without the norm's gain.

  Args:
    origin: An origin whose layer and site are known.
  """
  if origin.layer is None or origin.site is None:
    raise ValueError(f'incomplete origin: {origin}')
  transcodes = origin.site == 'transcoder'
  family = next(
      (f for f in lm.FAMILIES if str(origin.model).startswith(f)),
      next(iter(lm.FAMILIES)),
  )
  names = hook_names.hook_names(
      origin.site,
      layer=origin.layer,
      input_gain=origin.input_gain,
      family=family,
  )
  hooks = {
      library: (
          names['input'][library],
          names['target'][library] if transcodes else None,
      )
      for library in ('transformer_lens', 'huggingface')
  }
  if transcodes and origin.input_gain:
    source = _MLP_IN.format(layer=origin.layer)
    hooks['transformer_lens'] = source, hooks['transformer_lens'][1]
  elif transcodes:
    del hooks['huggingface']
  return hooks
