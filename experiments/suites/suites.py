"""What the figures are drawn from: suites that are trained, each of them once.

A figure names its suites; figures that name the same one share it.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from experiments.nano import made
from experiments.suites import scales

# Those that the JumpReLU paper compares, worst first.
VARIANTS = ('relu', 'gated', 'topk', 'jumprelu')
# What stands before its value in the name of a suite.
BANDWIDTH = 'bandwidth_'
_CHOOSE_L0 = ('topk', 'batch_topk', 'matryoshka_topk', 'matryoshka_batch_topk')


@dataclasses.dataclass(frozen=True)
class Suite:
  """One training run and what is measured of its members."""

  name: str
  # Overrides of a `TrainConfig` by dotted path.
  config: Mapping[str, Any]
  measures: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
  """The members of a suite, measured on other text or in another model."""

  name: str
  suite: Suite
  # Overrides of the suite's config: what is read, not what is trained.
  changes: Mapping[str, Any]
  measures: tuple[str, ...] = ()
  # Only members of these sites; none: all.
  sites: tuple[str, ...] = ()
  # A suite whose sites' scales members take instead of their own: activations
  # are then as large, for them, as those that it was trained on.
  scales_of: Suite | None = None


def make(
    scale: scales.Scale,
    name: str,
    *,
    measures: tuple[str, ...] = (),
    **config: Any,
) -> Suite:
  """Makes a suite; `__` in a name stands for the dot of its path."""
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
  """What makes a suite of these variants, each at its own sparsities."""
  config: dict[str, Any] = {'variants': names, 'sites': sites}
  entries = []
  for name in names:
    values = scale.sparsities[name]
    if name in _CHOOSE_L0:
      config[f'sae__{name}__k'] = tuple(map(int, values))
      continue
    joined = '+'.join(f'{value:g}' for value in values)
    entries += [f'{name}@{site}:{joined}' for site in sites]
  if entries:
    config['sparsity_coefficients'] = tuple(entries)
  if 'gated' in names:
    # RI-L1, the stronger baseline, with which the JumpReLU paper compares.
    config['sae__gated__decoder_norm'] = 'free'
  return config


def headline(scale: scales.Scale) -> Suite:
  """Four variants at the scale's sites, each from several seeds."""
  longer = {}
  if scale.headline_tokens:
    longer['tokens'] = scale.headline_tokens
  return make(
      scale,
      'headline',
      measures=('histogram',),
      seeds=scale.seeds,
      **longer,
      **variants(scale, *VARIANTS, sites=scale.sites),
  )


def layer(scale: scales.Scale, number: int) -> Suite:
  """JumpReLU SAEs at the three sites of a layer, and transcoders."""
  return make(
      scale,
      f'layer_{number}',
      measures=('bfloat16', 'positions', 'r_l0'),
      layer=number,
      **variants(scale, 'jumprelu', sites=(*scales.SITES, 'transcoder')),
  )


def layers(scale: scales.Scale) -> tuple[Suite, ...]:
  """The suites of all layers."""
  return tuple(layer(scale, number) for number in scale.layers)


def ladder(scale: scales.Scale) -> Suite:
  """JumpReLU SAEs of growing width at equal coefficients."""
  return make(
      scale,
      'ladder',
      measures=('histogram', 'splitting', 'stability'),
      widths=scale.ladder,
      seeds=scale.seeds[:2],
      **variants(scale, 'jumprelu'),
  )


def chat_model(scale: scales.Scale) -> str | made.Made:
  """The instruction-tuned model that belongs to the base model."""
  base = str(scale.base['model'])
  if not scale.chat_steps:
    return f'{base}_it'
  return made.Made('model', f'{base}_it', scale.chat_steps, stands_for=base)


def chat(scale: scales.Scale) -> Suite:
  """JumpReLU SAEs of the instruction-tuned model, on turns of a chat."""
  return make(
      scale,
      'chat',
      model=chat_model(scale),
      corpus__wrap='chat',
      **variants(scale, 'jumprelu'),
  )


def target_l0(scale: scales.Scale) -> Suite:
  """JumpReLU SAEs that are asked for an L0."""
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
  """One variant with fields of its config changed, from several seeds."""
  changes = {f'sae__{variant}__{key}': v for key, v in fields.items()}
  changes['seeds'] = scale.seeds
  return make(scale, name, **(variants(scale, variant) | changes))


def plain(scale: scales.Scale, variant: str) -> Suite:
  """One variant as it is."""
  return ablation(scale, f'plain_{variant}', variant)


def gated_unit(scale: scales.Scale) -> Suite:
  """Gated SAEs as their paper has them, with unit decoder rows."""
  return ablation(scale, 'gated_unit', 'gated', decoder_norm='unit')


def bandwidths(scale: scales.Scale) -> tuple[Suite | Reading, ...]:
  """JumpReLU SAEs by the bandwidth of the kernel.

  At the bandwidth of the scale's recipe they are those of `plain`.
  """
  usual = plain(scale, 'jumprelu')
  own = made.resolve(usual.config).sae.jumprelu.bandwidth
  return tuple(
      Reading(f'{BANDWIDTH}{width:g}', usual, {})
      if width == own
      else ablation(scale, f'{BANDWIDTH}{width:g}', 'jumprelu', bandwidth=width)
      for width in scale.bandwidths
  )
