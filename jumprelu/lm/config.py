"""Shapes of the Gemma 2 family, without importing gemma."""

import dataclasses

from jumprelu.lm import sites

# How heads attend (`lm.attention`); all forms give the same, to rounding.
ATTENTION = ('auto', 'dense', 'chunked', 'splash')


@dataclasses.dataclass(frozen=True)
class LmConfig:
  """A Gemma-2-shaped language model.

  Layers alternate local and global attention, local first. Norms before and
  after attention and MLP, grouped-query attention, soft caps on attention
  scores and on logits, and a tied embedding are common to all of them.
  """

  name: str
  vocab: int
  d_model: int
  ffw: int
  heads: int
  kv_heads: int
  head_dim: int
  layers: int
  window: int = 4096
  attention_softcap: float = 50.0
  logits_softcap: float = 30.0
  # The positions of a sequence in training.
  context: int = 8192
  # Gemma 2 27B scales queries by (d_model / heads)^-0.5, the others by
  # head_dim^-0.5.
  query_scale_by_model: bool = False
  # Whether the gating weights are stored [2, ffw, d_model] (9B and 27B).
  transposed_gating: bool = False
  # auto: dense for short sequences, else splash on TPU, chunked elsewhere.
  attention: str = 'auto'

  def d_site(self, site: sites.Site) -> int:
    """Returns the width of an activation at `site`."""
    if site is sites.Site.ATTN_HEADS:
      return self.heads * self.head_dim
    return self.d_model


# Rows of the embedding as the gemma package and Kaggle ship it. Hugging Face's
# files have the tokenizer's 256,000; a model has the rows that its file has.
# The 128 rows above them stand for no token, but a softmax over all rows counts
# them: where they are zero, each adds exp(0) to its sum. Losses of one model
# may therefore differ slightly by where its file came from.
_VOCAB = 256_128

_2B = LmConfig(
    name='gemma2_2b',
    vocab=_VOCAB,
    d_model=2304,
    ffw=9216,
    heads=8,
    kv_heads=4,
    head_dim=256,
    layers=26,
)
_9B = LmConfig(
    name='gemma2_9b',
    vocab=_VOCAB,
    d_model=3584,
    ffw=14336,
    heads=16,
    kv_heads=8,
    head_dim=256,
    layers=42,
    transposed_gating=True,
)
_27B = LmConfig(
    name='gemma2_27b',
    vocab=_VOCAB,
    d_model=4608,
    ffw=36864,
    heads=32,
    kv_heads=16,
    head_dim=128,
    layers=46,
    query_scale_by_model=True,
    transposed_gating=True,
)

# Models by name.
MODELS = {
    'gemma2_nano': LmConfig(
        name='gemma2_nano',
        vocab=4096,
        d_model=128,
        ffw=512,
        heads=4,
        kv_heads=2,
        head_dim=32,
        layers=4,
        window=64,
        context=256,
    ),
} | {
    config.name + suffix: dataclasses.replace(config, name=config.name + suffix)
    for config in (_2B, _9B, _27B)
    for suffix in ('', '_it')
}
