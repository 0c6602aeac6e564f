"""The suites and readings that figures are drawn from.

Figures whose suites have the same name share the suite, which is trained once.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from experiments.nano import made
from experiments.suites import scales

# The variants that the JumpReLU paper compares, worst first.
VARIANTS = ('relu', 'gated', 'topk', 'jumprelu')
# Prefix of a suite's name, before the value of the bandwidth.
BANDWIDTH = 'bandwidth_'
# The measure of `results.py` that adds columns of training text to the rows.
TRAINING_TEXT = 'training_text'
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
  if scale.training_text:
    measures += (TRAINING_TEXT,)
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
  """Returns the suite of four variants at the scale's sites and seeds.

  It has only JumpReLU and TopK if the scale separates the baselines.
  """
  names = VARIANTS[2:] if scale.separate_baselines else VARIANTS
  return _comparison(scale, 'headline', names)


def with_baselines(scale: scales.Scale) -> tuple[Suite, ...]:
  """Returns the one or two suites that have all four variants."""
  if not scale.separate_baselines:
    return (headline(scale),)
  return headline(scale), _comparison(scale, 'baselines', VARIANTS[:2])


def _comparison(scale: scales.Scale, name: str, names: Sequence[str]) -> Suite:
  overrides = {}
  if scale.headline_tokens:
    overrides['tokens'] = scale.headline_tokens
  return make(
      scale,
      name,
      measures=('histogram',),
      seeds=scale.seeds,
      **overrides,
      **variants(scale, *names, sites=scale.sites),
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
      **scale.ladder_config,
      **variants(_with_sparsities_of(scale, 'ladder', 'jumprelu'), 'jumprelu'),
  )


def _with_sparsities_of(
    scale: scales.Scale, name: str, variant: str
) -> scales.Scale:
  """Returns the scale with a suite's sparsities as those of a variant."""
  values = scale.sparsities.get(name, scale.sparsities[variant])
  return dataclasses.replace(
      scale, sparsities={**scale.sparsities, variant: values}
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
  """Returns a suite of one variant with changed fields, from several seeds.

  Its sparsities are those of the variant unless the scale has others for it.
  """
  scale = _with_sparsities_of(scale, name, variant)
  changes = {f'sae__{variant}__{key}': v for key, v in fields.items()}
  changes['seeds'] = scale.seeds
  return make(scale, name, **(variants(scale, variant) | changes))


def plain(scale: scales.Scale, variant: str) -> Suite:
  """Returns a suite of one variant with its default options."""
  return ablation(scale, f'plain_{variant}', variant)


def jumprelu(scale: scales.Scale) -> Suite:
  """Returns a suite with JumpReLU SAEs that have their default options.

  It is the headline suite if the scale shares that.
  """
  return headline(scale) if scale.shares_headline else plain(scale, 'jumprelu')


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
