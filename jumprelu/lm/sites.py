"""Places in a language model where an SAE can read and write."""

import enum
from typing import NamedTuple


class Site(enum.StrEnum):
  """A named activation of a Gemma 2 block (Gemma Scope, arXiv 2408.05147).

  A `StrEnum`, because taps are keys of pytrees and JAX sorts those.
  """

  # The residual stream after the block.
  RESID_POST = enum.auto()
  # The MLP's output after its post-norm, before it joins the residual stream.
  MLP_OUT = enum.auto()
  # The MLP's input: the output of the pre-feedforward norm, gain included.
  MLP_IN = enum.auto()
  # The attention heads' outputs, concatenated, before the output projection.
  ATTN_HEADS = enum.auto()


class Tap(NamedTuple):
  """A site of one layer (zero-indexed)."""

  layer: int
  site: Site


# The name of a site of SAEs -> what an SAE there reads and reconstructs.
SITES: dict[str, tuple[Site, Site]] = {
    'resid_post': (Site.RESID_POST, Site.RESID_POST),
    'mlp_out': (Site.MLP_OUT, Site.MLP_OUT),
    'attn_heads': (Site.ATTN_HEADS, Site.ATTN_HEADS),
    'transcoder': (Site.MLP_IN, Site.MLP_OUT),
}
