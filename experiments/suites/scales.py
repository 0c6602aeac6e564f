"""Sizes of the figures' suites.

`nano` uses the embedded language model on a CPU. `quick` is `nano` with a few
steps, which only checks that the code works. `nano_long` has 8 to 12 times the
tokens of `nano`, for the claims that depend on them, and `nano_long_half` half
of those, to test whether results have settled (`settled.py`). `gemma2_2b` and
`gemma2_9b` are the scales of Gemma Scope (arXiv 2408.05147, section 3 and table
1).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

SITES = ('resid_post', 'mlp_out', 'attn_heads')


@dataclasses.dataclass(frozen=True)
class Scale:
  """Models, layers, widths, sparsities and budgets of the figures' suites."""

  name: str
  # Config fields that all suites share, by dotted path.
  base: Mapping[str, Any]
  layer: int
  layers: tuple[int, ...]
  width: int
  # Widths of the suite `ladder`, which have equal coefficients.
  ladder: tuple[int, ...]
  seeds: tuple[int, ...]
  # Sites of the suites `headline` and `target_l0`.
  sites: tuple[str, ...]
  # By variant: coefficients, or values of k for TopK variants. The name of a
  # suite of one variant is a key if its sparsities differ from the variant's.
  sparsities: Mapping[str, tuple[float, ...]]
  target_l0: tuple[float, ...]
  bandwidths: tuple[float, ...]
  # Texts of `texts.py` for additional readings, and the characters of each.
  texts: tuple[str, ...]
  text_characters: int
  # Steps of finetuning that make a chat model from the base model; 0: the chat
  # model is released and has the base model's name with the suffix _it.
  chat_steps: int
  # TPU slice for which suites are planned; empty: they run on a CPU.
  topology: str = ''
  # Tokens of the headline suite, if it trains on more than the others.
  headline_tokens: int | None = None
  # Config fields of the suite `ladder` that differ from `base`.
  ladder_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Names of the scale's figures; empty: all figures.
  figures: tuple[str, ...] = ()
  # Whether members are also measured on training text.
  training_text: bool = False
  # Whether ReLU and Gated SAEs, whose steps are slow, have a suite of their own
  # instead of a part in the headline suite.
  separate_baselines: bool = False
  # Whether the headline suite's JumpReLU SAEs serve as `plain_jumprelu`.
  shares_headline: bool = False


_NANO = {
    'recipe': 'short',
    'model': 'gemma2_nano',
    'tokens': 262_144,
    'eval.delta_loss_tokens': 16_384,
    'eval.pca_tokens': 0,
}

NANO = Scale(
    name='nano',
    base=_NANO,
    layer=2,
    layers=(0, 1, 2, 3),
    width=512,
    ladder=(256, 512, 1024, 2048),
    seeds=(0, 1, 2),
    sites=SITES,
    sparsities={
        'jumprelu': (5e-4, 1e-3, 2e-3, 4e-3),
        'topk': (8, 16, 32, 64),
        'gated': (0.04, 0.08, 0.16, 0.32),
        'relu': (0.04, 0.08, 0.16, 0.32),
        'relu_rescaled': (0.04, 0.08, 0.16, 0.32),
    },
    target_l0=(10, 20, 40, 80),
    bandwidths=(0.003, 0.01, 0.03, 0.1, 0.3),
    headline_tokens=524_288,
    texts=('jax', 'docstrings', 'stubs', 'descriptions', 'headers'),
    text_characters=150_000,
    chat_steps=120,
)

NANO_LONG = dataclasses.replace(
    NANO,
    name='nano_long',
    base=_NANO | {'tokens': 4_194_304},
    layers=(2,),
    seeds=(0,),
    sites=SITES[:1],
    sparsities={
        'jumprelu': (4e-4, 1e-3, 3e-3),
        'topk': (40, 60),
        'gated': (0.12,),
        'relu': (0.1,),
        'relu_rescaled': (0.1,),
        'ladder': (1e-3, 2.5e-3),
        'to_pre_acts': (1e-3,),
    },
    headline_tokens=None,
    # The standard library has fewer than 3M training tokens, so that wide SAEs
    # would see the same text twice.
    ladder_config={'data': 'python', 'tokens': 3_145_728},
    figures=(
        'jumprelu_fidelity',
        'jumprelu_pre_acts',
        'gated_ito',
        'scope_width',
        'scope_splitting',
    ),
    training_text=True,
    separate_baselines=True,
    shares_headline=True,
)


def _half(scale: Scale) -> Scale:
  """Returns the scale with half of its tokens."""
  halves = [
      dict(fields) | {'tokens': fields['tokens'] // 2}
      for fields in (scale.base, scale.ladder_config)
  ]
  return dataclasses.replace(
      scale,
      name=f'{scale.name}_half',
      base=halves[0],
      ladder_config=halves[1],
  )


NANO_LONG_HALF = _half(NANO_LONG)

QUICK = dataclasses.replace(
    NANO,
    name='quick',
    base=_NANO
    | {
        'tokens': 4096,
        'stream.block_positions': 4096,
        'stream.batches_per_dispatch': 4,
        'stream.scale_tokens': 4096,
        'stream.lm_sequences': 16,
        'eval.tokens': 2048,
        'eval.delta_loss_tokens': 1024,
        'eval.lm_sequences': 4,
        'corpus.max_tokens': 60_000,
    },
    layers=(2,),
    width=128,
    ladder=(128, 256),
    seeds=(0, 1),
    # One site, because each site is compiled separately, which dominates time.
    sites=SITES[:1],
    sparsities={name: v[1:3] for name, v in NANO.sparsities.items()},
    target_l0=(20, 40),
    bandwidths=(0.03, 0.1),
    headline_tokens=None,
    texts=('docstrings', 'headers'),
    text_characters=40_000,
    chat_steps=2,
)

_PAPER = {'recipe': 'paper', 'stream.lm_sequences': 64, 'mesh.tensor': 2}
# Gemma Scope does not publish its grid of coefficients. These coefficients
# surround the two that it names, 6e-4 and 1e-3. Those of the baselines are
# chosen for similar L0s, because published coefficients are for another scale
# of the loss.
_SPARSITIES = {
    'jumprelu': (1e-4, 3e-4, 6e-4, 1e-3, 2e-3),
    'topk': (16, 32, 64, 128, 256),
    'gated': (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    'relu': (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    'relu_rescaled': (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
}
_LADDER = tuple(2**n for n in range(14, 20))

GEMMA2_2B = Scale(
    name='gemma2_2b',
    base=_PAPER | {'model': 'gemma2_2b'},
    layer=12,
    layers=(0, 4, 8, 12, 17, 21, 25),
    width=2**14,
    ladder=_LADDER,
    seeds=(0,),
    sites=SITES,
    sparsities=_SPARSITIES,
    target_l0=(25, 50, 100, 200),
    bandwidths=(3e-5, 3e-4, 1e-3, 3e-3, 3e-2),
    texts=NANO.texts,
    text_characters=400_000,
    chat_steps=0,
    topology='v5e:4x4',
)

GEMMA2_9B = dataclasses.replace(
    GEMMA2_2B,
    name='gemma2_9b',
    base=_PAPER | {'model': 'gemma2_9b', 'tokens': 8_000_000_000},
    layer=20,
    layers=(0, 5, 9, 15, 20, 26, 31, 36, 41),
    width=2**17,
    topology='v5p:2x2x4',
)

SCALES = {
    scale.name: scale
    for scale in (
        NANO,
        NANO_LONG,
        NANO_LONG_HALF,
        QUICK,
        GEMMA2_2B,
        GEMMA2_9B,
    )
}
