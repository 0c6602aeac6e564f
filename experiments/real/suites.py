"""The parts of the run on Gemma 3 270M, as data.

A part is a suite of SAEs that is trained and measured in at most two hours, and
that ends with one CSV file. Parts that read the same
activations share a store, which is filled once. All parts read one layer, so
that everything up to it is computed once per token.

Layer 9 of 18 is the middle of Gemma 3 270M, and one of the four layers (5, 9,
12, 15) for which Gemma Scope 2 publishes SAEs of this model.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

RESIDUAL, SITES = 'residual', 'sites'


@dataclasses.dataclass(frozen=True)
class Scale:
  """The model, text, layer, widths, sparsities and tokens of all parts."""

  name: str
  model: str
  data: str
  layer: int = 9
  # Positions of the parts of the residual stream, and of the other sites.
  tokens: int = 2**22
  site_tokens: int = 2**20
  width: int = 2**14
  # The width of other sites, and of the variants that are compared at it.
  narrow: int = 2**12
  # Widths below `width`; together they are the ladder.
  ladder: tuple[int, ...] = (2**10, 2**11, 2**12, 2**13)
  coefficients: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
  # Coefficients of the L1 variants.
  l1_coefficients: tuple[float, ...] = (0.02, 0.04, 0.08)
  target_l0: tuple[float, ...] = (10, 50, 100)
  # Values of k of TopK and BatchTopK.
  k: tuple[int, ...] = (50, 100)
  # The L0 at which several seeds are trained.
  seeds_l0: int = 50
  seeds: tuple[int, ...] = (0, 1, 2)
  # Further config fields that all parts share, by dotted path.
  base: Mapping[str, Any] = dataclasses.field(
      default_factory=lambda: {
          'corpus.sequence_length': 512,
          # Without these two, 0.35 % of tokens have 87 % of the variance and
          # the mean 95 % of E||x||^2 of the others (`norms.py`).
          'stream.center': True,
          'stream.max_norm': 1.6,
          # Without it 36 % of 16,384 latents die, with it 20 %.
          'optim.update_clip': 3,
          # A fifth of the rate of `short`, which suits 128 dimensions.
          'optim.learning_rate': 2e-3,
          # A checkpoint of a part has up to half a gigabyte.
          'checkpoint.every_blocks': 16,
          'checkpoint.keep': 2,
          'eval.delta_loss_tokens': 16_384,
          'eval.pca_tokens': 0,
      }
  )


@dataclasses.dataclass(frozen=True)
class Store:
  """Activations that several parts read."""

  name: str
  sites: tuple[str, ...]
  tokens: int


@dataclasses.dataclass(frozen=True)
class Part:
  """One training run, the name of the store that it reads, and its CSV file."""

  name: str
  # Overrides of a `TrainConfig`, by dotted path.
  config: Mapping[str, Any]
  store: str
  # Measures beyond those of every evaluation.
  measures: tuple[str, ...] = ()


def gemma3_270m(model: str, data: str, **changes: Any) -> Scale:
  """Returns the scale of the real run."""
  return dataclasses.replace(Scale('gemma3_270m', model, data), **changes)


def stores(scale: Scale) -> tuple[Store, ...]:
  """Returns the stores of all parts."""
  return (
      Store(RESIDUAL, ('resid_post',), scale.tokens),
      Store(SITES, ('mlp_out', 'attn_heads', 'transcoder'), scale.site_tokens),
  )


def harvest_config(scale: Scale, store: Store) -> dict[str, Any]:
  """Returns the overrides of the training config that fills a store."""
  return {**_base(scale), 'sites': store.sites, 'tokens': store.tokens}


def parts(scale: Scale) -> tuple[Part, ...]:
  """Returns all parts, the headline's first."""
  return (
      *_headline(scale),
      _variant(scale, 'half_jumprelu', tokens=scale.tokens // 2,
               target_l0=(scale.seeds_l0,)),
      _topk(scale, 'half_topk', 'topk', scale.k[:1], scale.seeds[:1],
            tokens=scale.tokens // 2),
      _variant(scale, 'ladder', widths=scale.ladder,
               sparsity_coefficients=_listed(scale.coefficients),
               measures=('splitting', 'pursuit')),
      _variant(scale, 'to_pre_acts', widths=(scale.narrow,),
               sparsity_coefficients=_listed(scale.coefficients),
               **{'sae.jumprelu.gradient_to_pre_acts': True}),
      *_baselines(scale),
      *_other_sites(scale),
  )  # fmt: skip


def named(scale: Scale, names: Sequence[str]) -> list[Part]:
  """Returns the parts with these names, in the order of `parts`.

  The name `all` selects all parts.

  Raises:
    KeyError: a name is unknown.
  """
  known = {part.name: part for part in parts(scale)}
  for name in names:
    if name != 'all' and name not in known:
      raise KeyError(name)
  wanted = known if 'all' in names else set(names)
  return [part for name, part in known.items() if name in wanted]


def _headline(scale: Scale) -> list[Part]:
  """Returns the parts of JumpReLU, TopK and BatchTopK at the full width."""
  others = tuple(x for x in scale.target_l0 if x != scale.seeds_l0)
  topk = [
      _topk(scale, f'topk_seed_{seed}', 'topk', (scale.seeds_l0,), (seed,))
      for seed in scale.seeds
  ]
  return [
      _variant(scale, 'jumprelu_coefficients',
               sparsity_coefficients=_listed(scale.coefficients)),
      _variant(scale, 'jumprelu_targets', target_l0=others),
      _variant(scale, 'jumprelu_seeds', target_l0=(scale.seeds_l0,),
               seeds=scale.seeds),
      *topk,
      *(
          _topk(scale, f'topk_{k}', 'topk', (k,), scale.seeds[:1])
          for k in scale.k if k != scale.seeds_l0
      ),
      *(
          _topk(scale, f'batch_topk_{k}', 'batch_topk', (k,), scale.seeds[:1])
          for k in scale.k
      ),
  ]  # fmt: skip


def _baselines(scale: Scale) -> list[Part]:
  """Returns the parts of Gated and ReLU + L1, each with one coefficient.

  They are trained by automatic differentiation of all latents, which is the
  slowest step, so a part has only one member.
  """
  made = []
  for variant in ('gated', 'relu'):
    # RI-L1, the stronger baseline, which the JumpReLU paper uses.
    options = {'sae.gated.decoder_norm': 'free'} if variant == 'gated' else {}
    for number, coefficient in enumerate(scale.l1_coefficients):
      made.append(
          _variant(
              scale,
              f'{variant}_{number}',
              measures=('pursuit',),
              variants=(variant,),
              widths=(scale.narrow,),
              sparsity_coefficients=_listed((coefficient,)),
              **options,
          )
      )
  return made


def _other_sites(scale: Scale) -> list[Part]:
  """Returns the parts of the MLP's output, attention heads and transcoders."""
  return [
      _variant(
          scale,
          site,
          sites=(site,),
          store=SITES,
          tokens=scale.site_tokens,
          widths=(scale.narrow,),
          sparsity_coefficients=_listed(scale.coefficients),
      )
      for site in ('mlp_out', 'attn_heads', 'transcoder')
  ]


def _topk(
    scale: Scale,
    name: str,
    variant: str,
    k: Sequence[int],
    seeds: Sequence[int],
    **config: Any,
) -> Part:
  return _variant(
      scale,
      name,
      variants=(variant,),
      seeds=tuple(seeds),
      **{f'sae.{variant}.k': tuple(k)},
      **config,
  )


def _variant(
    scale: Scale,
    name: str,
    *,
    store: str = RESIDUAL,
    measures: tuple[str, ...] = (),
    **config: Any,
) -> Part:
  """Returns a part of the residual stream at the full width, or as changed."""
  return Part(name, {**_base(scale), **config}, store, measures)


def _base(scale: Scale) -> dict[str, Any]:
  return {
      'recipe': 'short',
      'model': scale.model,
      'data': scale.data,
      'layer': scale.layer,
      'sites': ('resid_post',),
      'widths': (scale.width,),
      'tokens': scale.tokens,
      **scale.base,
  }


def _listed(values: Sequence[float]) -> tuple[str, ...]:
  return tuple(f'{value:g}' for value in values)
