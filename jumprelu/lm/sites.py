"""Sites in a language model, and the taps that SAEs read and reconstruct."""

from collections.abc import Iterable, Mapping
import dataclasses
import enum
import re
from typing import NamedTuple, TypeVar

from jumprelu import errors


class Site(enum.StrEnum):
  """A named activation of a Gemma block (Gemma Scope, arXiv 2408.05147).

  It is a `StrEnum` because taps are keys of dicts, which JAX sorts.
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
  """A site of one layer (zero-indexed), written as `layer_12.resid_post`."""

  layer: int
  site: Site

  def __str__(self) -> str:
    return f'layer_{self.layer}.{self.site}'


_TAP = re.compile(rf'layer_(0|[1-9]\d*)\.({"|".join(Site)})')


def parse_tap(text: str) -> Tap:
  """Returns the tap that `text` names.

  Raises:
    DataError: if `text` names no tap.
  """
  match = _TAP.fullmatch(text)
  if not match:
    raise errors.DataError(
        f'{text!r} names no tap; a tap is written as layer_12.resid_post, with'
        f' one of the sites {", ".join(Site)}'
    )
  return Tap(int(match[1]), Site(match[2]))


@dataclasses.dataclass(frozen=True)
class Reads:
  """The taps that an SAE reads and those that it reconstructs.

  The SAE's input is the concatenation of the activations at `inputs`, in order,
  and its target is the concatenation of the activations at `targets`.
  """

  inputs: tuple[Tap, ...]
  targets: tuple[Tap, ...]
  # Whether inputs at `Site.MLP_IN` include the gain of their layer's norm. Has
  # no effect if no input is at this site; `make_reads` then sets it to True.
  input_gain: bool = True
  # The largest norm of the rows that the SAE was trained on, at some taps.
  limits: tuple[tuple[Tap, float], ...] = ()

  def __post_init__(self):
    if not self.inputs or not self.targets:
      raise ValueError('an SAE needs at least one input tap and one target tap')
    for taps in (self.inputs, self.targets):
      if len(set(taps)) < len(taps):
        raise ValueError(f'a tap is repeated: {spell(taps)}')

  @property
  def taps(self) -> tuple[Tap, ...]:
    """Returns the inputs and targets, sorted, each once."""
    return tuple(sorted({*self.inputs, *self.targets}))

  @property
  def layers(self) -> tuple[int, ...]:
    """Returns the layers of the taps, sorted, each once."""
    return tuple(sorted({tap.layer for tap in self.taps}))

  @property
  def is_transcoder(self) -> bool:
    """Whether targets differ from inputs."""
    return self.inputs != self.targets

  @property
  def stated_input_gain(self) -> bool | None:
    """Returns `input_gain`, or None if no input is at `Site.MLP_IN`."""
    read = any(tap.site is Site.MLP_IN for tap in self.inputs)
    return self.input_gain if read else None

  @property
  def input(self) -> Tap:
    """Returns the input; raises UserError if there are several."""
    return _single(self.inputs, 'inputs')

  @property
  def target(self) -> Tap:
    """Returns the target; raises UserError if there are several."""
    return _single(self.targets, 'targets')

  @property
  def layer(self) -> int:
    """Returns the layer of all taps; raises UserError if there are several."""
    layer, *others = self.layers
    if others:
      raise errors.UserError(
          f'only SAEs of one layer are supported, not {spell(self.taps)}'
      )
    return layer

  @property
  def name(self) -> str:
    """Returns the name in `SITES`; without one, the taps as text."""
    if len(self.inputs) == len(self.targets) == len(self.layers) == 1:
      pair = self.input.site, self.target.site
      for name, sites in SITES.items():
        if sites == pair:
          return name
    if not self.is_transcoder:
      return spell(self.inputs)
    return f'{spell(self.inputs)} to {spell(self.targets)}'


# Name -> the site that an SAE of this name reads, and the site that it
# reconstructs.
SITES: dict[str, tuple[Site, Site]] = {
    'resid_post': (Site.RESID_POST, Site.RESID_POST),
    'mlp_out': (Site.MLP_OUT, Site.MLP_OUT),
    'attn_heads': (Site.ATTN_HEADS, Site.ATTN_HEADS),
    'transcoder': (Site.MLP_IN, Site.MLP_OUT),
}


def make_reads(name: str, layer: int, *, input_gain: bool = True) -> Reads:
  """Returns the taps of an SAE with a name in `SITES`.

  Args:
    name: A key of `SITES`.
    layer: The layer of input and target.
    input_gain: Whether an input at `Site.MLP_IN` includes its norm's gain; has
      no effect on other inputs.

  Raises:
    UserError: if the name is not in the table.
  """
  if name not in SITES:
    raise errors.UserError(
        f'site {name!r} is unknown; sites: {", ".join(SITES)}'
    )
  source, target = SITES[name]
  return Reads(
      inputs=(Tap(layer, source),),
      targets=(Tap(layer, target),),
      input_gain=input_gain or source is not Site.MLP_IN,
  )


def all_taps(reads: Iterable[Reads]) -> tuple[Tap, ...]:
  """Returns the taps of several SAEs, sorted, each once."""
  return tuple(sorted({tap for sae_reads in reads for tap in sae_reads.taps}))


def all_limits(reads: Iterable[Reads]) -> dict[Tap, float]:
  """Returns the largest norm of the rows that all of several SAEs read."""
  limits: dict[Tap, float] = {}
  for sae_reads in reads:
    for tap, limit in sae_reads.limits:
      limits[tap] = min(limit, limits.get(tap, limit))
  return limits


def slices_of(
    taps: Iterable[Tap], widths: Mapping[Tap, int]
) -> dict[Tap, slice]:
  """Returns each tap's slice of the activations concatenated in this order."""
  slices, start = {}, 0
  for tap in taps:
    slices[tap] = slice(start, start + widths[tap])
    start += widths[tap]
  return slices


_Value = TypeVar('_Value')


def to_json_keys(values: Mapping[Tap, _Value]) -> dict[str, _Value]:
  """Returns a dict with the taps as text, because JSON keys are text."""
  return {str(tap): value for tap, value in values.items()}


def from_json_keys(values: Mapping[str, _Value]) -> dict[Tap, _Value]:
  """Returns the inverse of `to_json_keys`; DataError if a key names no tap."""
  return {parse_tap(text): value for text, value in values.items()}


def spell(taps: Iterable[Tap]) -> str:
  """Returns the taps as one text, for messages."""
  return '+'.join(map(str, taps))


def _single(taps: tuple[Tap, ...], kind: str) -> Tap:
  tap, *others = taps
  if others:
    raise errors.UserError(
        f'only SAEs with one tap are supported, not the {kind} {spell(taps)}'
    )
  return tap
