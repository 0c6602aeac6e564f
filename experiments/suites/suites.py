"""The suites and readings that figures are drawn from.

Figures whose suites have the same name share the suite, which is trained once.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from experiments.nano import made
from experiments.suites import scales

# The variants that the JumpReLU paper compares, worst first.
VARIANTS = ('relu', 'gated', 'topk', 'jumprelu')
# Prefix of a suite's name, before the value of the bandwidth.
BANDWIDTH = 'bandwidth_'
_TOPK_VARIANTS = (
    'topk',
    'batch_topk',
    'matryoshka_topk',
    'matryoshka_batch_topk',
)


@dataclasses.dataclass(frozen=True)
class Suite:
  """One training run and the measures of its members."""

  name: str
  # Overrides of a `TrainConfig`, by dotted path.
  config: Mapping[str, Any]
  measures: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
  """The members of a suite, measured on other text or in another model."""

  name: str
  suite: Suite
  # Overrides of the suite's config for the measurement; training ignores them.
  changes: Mapping[str, Any]
  measures: tuple[str, ...] = ()
  # Sites of the measured members; empty: all sites.
  sites: tuple[str, ...] = ()
  # A suite whose activation scales replace those of the members, site by site.
  # If it was trained on the activations of the measurement, these are scaled to
  # the norm that the members were trained on.
  scales_of: Suite | None = None


def make(
    scale: scales.Scale,
    name: str,
    *,
    measures: tuple[str, ...] = (),
    **config: Any,
) -> Suite:
  """Returns a suite; `__` in a keyword is replaced by the dot of a path."""
  changes = {key.replace('__', '.'): value for key, value in config.items()}
  return Suite(
      name,
      {
          'layer': scale.layer,
          'widths': (scale.width,),
          'sites': scales.SITES[:1],
          **scale.base,
          **changes,
      },
      measures,
  )


def variants(
    scale: scales.Scale, *names: str, sites: tuple[str, ...] = scales.SITES[:1]
) -> dict[str, Any]:
  """Returns config fields for variants, each at its sparsities of the scale."""
  config: dict[str, Any] = {'variants': names, 'sites': sites}
  entries = []
  for name in names:
    values = scale.sparsities[name]
    if name in _TOPK_VARIANTS:
      config[f'sae__{name}__k'] = tuple(map(int, values))
      continue
    joined = '+'.join(f'{value:g}' for value in values)
    entries += [f'{name}@{site}:{joined}' for site in sites]
  if entries:
    config['sparsity_coefficients'] = tuple(entries)
  if 'gated' in names:
    # RI-L1, the stronger baseline, which the JumpReLU paper uses.
    config['sae__gated__decoder_norm'] = 'free'
  return config


def headline(scale: scales.Scale) -> Suite:
  """Returns the suite of four variants at the scale's sites and seeds."""
  overrides = {}
  if scale.headline_tokens:
    overrides['tokens'] = scale.headline_tokens
  return make(
      scale,
      'headline',
      measures=('histogram',),
      seeds=scale.seeds,
      **overrides,
      **variants(scale, *VARIANTS, sites=scale.sites),
  )


def layer(scale: scales.Scale, number: int) -> Suite:
  """Returns a layer's suite: JumpReLU SAEs of three sites and transcoders."""
  return make(
      scale,
      f'layer_{number}',
      measures=('bfloat16', 'positions', 'r_l0'),
      layer=number,
      **variants(scale, 'jumprelu', sites=(*scales.SITES, 'transcoder')),
  )


def layers(scale: scales.Scale) -> tuple[Suite, ...]:
  """Returns the suites of all layers of the scale."""
  return tuple(layer(scale, number) for number in scale.layers)


def ladder(scale: scales.Scale) -> Suite:
  """Returns the suite of JumpReLU SAEs of increasing width.

  The coefficients are equal for all widths.
  """
  return make(
      scale,
      'ladder',
      measures=('histogram', 'splitting', 'stability'),
      widths=scale.ladder,
      seeds=scale.seeds[:2],
      **variants(scale, 'jumprelu'),
  )


def chat_model(scale: scales.Scale) -> str | made.Made:
  """Returns the instruction-tuned model of the scale's base model."""
  base = str(scale.base['model'])
  if not scale.chat_steps:
    return f'{base}_it'
  return made.Made('model', f'{base}_it', scale.chat_steps, stands_for=base)


def chat(scale: scales.Scale) -> Suite:
  """Returns the suite of the chat model, trained on text in chat format."""
  return make(
      scale,
      'chat',
      model=chat_model(scale),
      corpus__wrap='chat',
      **variants(scale, 'jumprelu'),
  )


def target_l0(scale: scales.Scale) -> Suite:
  """Returns the suite of JumpReLU SAEs with a target L0."""
  return make(
      scale,
      'target_l0',
      target_l0=scale.target_l0,
      seeds=scale.seeds,
      sites=scale.sites,
  )


def ablation(
    scale: scales.Scale, name: str, variant: str, **fields: Any
) -> Suite:
  """Returns a suite of one variant with changed fields, from several seeds."""
  changes = {f'sae__{variant}__{key}': v for key, v in fields.items()}
  changes['seeds'] = scale.seeds
  return make(scale, name, **(variants(scale, variant) | changes))


def plain(scale: scales.Scale, variant: str) -> Suite:
  """Returns a suite of one variant with its default options."""
  return ablation(scale, f'plain_{variant}', variant)


def gated_unit(scale: scales.Scale) -> Suite:
  """Returns the suite of Gated SAEs as in the paper, with unit decoder rows."""
  return ablation(scale, 'gated_unit', 'gated', decoder_norm='unit')


def bandwidths(scale: scales.Scale) -> tuple[Suite | Reading, ...]:
  """Returns one suite of JumpReLU SAEs per bandwidth of the kernel.

  The default bandwidth of the scale is a reading of the suite `plain_jumprelu`,
  so that its SAEs are not trained twice.
  """
  usual = plain(scale, 'jumprelu')
  default = made.resolve(usual.config).sae.jumprelu.bandwidth
  return tuple(
      Reading(f'{BANDWIDTH}{width:g}', usual, {})
      if width == default
      else ablation(scale, f'{BANDWIDTH}{width:g}', 'jumprelu', bandwidth=width)
      for width in scale.bandwidths
  )
