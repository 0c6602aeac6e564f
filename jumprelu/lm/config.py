"""Shapes of language models; this module does not import gemma."""

import dataclasses
from typing import NamedTuple

from jumprelu.lm import sites

# Values of `LmConfig.attention`: 'auto' selects one of the implementations in
# `lm.attention`, which agree up to rounding.
ATTENTION = ('auto', 'dense', 'chunked', 'splash')

# Kinds of layers: attention within a sliding window, or to the whole document.
LOCAL = 'local'
GLOBAL = 'global'


class Rope(NamedTuple):
  """A rotary embedding with the frequencies base^(-2i / head_dim) / scale."""

  base: int = 10_000
  scale: float = 1.0


def shortest_pattern(kinds: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the shortest pattern that the layers of these kinds repeat."""
  for period in range(1, len(kinds)):
    if all(kind == kinds[i % period] for i, kind in enumerate(kinds)):
      return kinds[:period]
  return kinds


@dataclasses.dataclass(frozen=True)
class LmConfig:
  """The shape of a language model; the defaults are Gemma 2's.

  All models have norms before and after attention and MLP, grouped-query
  attention, a gated MLP and a tied embedding. `lm.families` has the other
  properties that the models of a family share.
  """

  name: str
  vocab: int
  d_model: int
  ffw: int
  heads: int
  kv_heads: int
  head_dim: int
  layers: int
  # A key of `lm.families.FAMILIES`.
  family: str = 'gemma2'
  # The kinds of the first layers; later layers repeat this pattern.
  layer_pattern: tuple[str, ...] = (LOCAL, GLOBAL)
  window: int = 4096
  # Caps of attention scores and of logits: cap * tanh(x / cap). None: no cap.
  attention_softcap: float | None = 50.0
  logits_softcap: float | None = 30.0
  # Whether queries and keys are normalised before the rotary embedding.
  qk_norm: bool = False
  local_rope: Rope = Rope()
  global_rope: Rope = Rope()
  # The length, in positions, of the sequences that the model was trained on.
  context: int = 8192
  # Scales queries by (d_model / heads)^-0.5 instead of head_dim^-0.5.
  query_scale_by_model: bool = False
  # Whether the gating weights are [2, ffw, d_model], not [2, d_model, ffw].
  transposed_gating: bool = False
  # auto: dense for short sequences, else splash on TPU, chunked elsewhere.
  attention: str = 'auto'

  def __post_init__(self):
    if not self.layer_pattern or set(self.layer_pattern) - {LOCAL, GLOBAL}:
      raise ValueError(
          f'layer_pattern={self.layer_pattern!r} of {self.name}: must be a'
          f' tuple of {LOCAL!r} and {GLOBAL!r}'
      )

  @property
  def layer_kinds(self) -> tuple[str, ...]:
    """Returns the kind of every layer: `LOCAL` or `GLOBAL`."""
    pattern = self.layer_pattern
    return tuple(pattern[i % len(pattern)] for i in range(self.layers))

  def d_site(self, site: sites.Site) -> int:
    """Returns the width of an activation at `site`."""
    if site is sites.Site.ATTN_HEADS:
      return self.heads * self.head_dim
    return self.d_model
