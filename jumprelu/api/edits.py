"""Edits as data: changes of latents or along directions in a forward pass."""

from collections.abc import Iterable
import dataclasses
import math
import operator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jumprelu import errors, lm
from jumprelu.api import dictionary
from jumprelu.api import taps as taps_lib
from jumprelu.evals import edits as edits_lib

# A position after every token.
_END = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Edit:
  """A change of one latent, or along a direction, in a forward pass.

  The edit changes a coefficient f of the activations x: the latent, or the
  component of x along the direction. The change of f times the latent's row of
  W_dec (or the direction) is added to x. The SAE's error is kept, so that an
  edit that does not change f does not change x. BOS and EOS are not edited.

      op             f becomes        directions
      add            f + value        yes
      set            value            yes
      scale          f times value    yes
      ablate         0                yes
      cap            min(f, value)    yes
      set_if_active  value if f != 0  no, because none is inactive

  The latents of a transcoder change the output that it reconstructs. All edits
  at one tap read x before any of them; those of one latent apply in order.

  Attributes:
    sae: The SAE of the latent; None for a direction.
    latent: The number of the latent.
    op: The kind of the change.
    value: Its value, in units of `unit`; None for `ablate`.
    unit: The activation that a value of 1 means, for instance the latent's
      largest activation, `sae.latent(172).largest`. `scale` has no unit.
    positions: The tokens to edit, counted from BOS, which is 0: a position, a
      list of them, a slice, or None for all. Negative ones are counted from the
      end of the text, or of the prompt: `slice(-1, None)` edits its last token
      and all new ones.
    tap: The tap of a direction.
    direction: The direction; its length matters for `add` alone.

  >>> jumprelu.Edit(sae, 172, op='set', value=0.5, unit=8.0)
  Edit(latent 172 at layer_2.resid_post, set 0.5 x 8)
  >>> tap = jumprelu.Tap(2, jumprelu.Site.RESID_POST)
  >>> jumprelu.Edit(tap=tap, direction=sae.W_dec[172], op='ablate')
  Edit(direction at layer_2.resid_post, ablate)
  """

  # Wrong types are refused in one line, hence `Any`.
  sae: Any = None
  latent: Any = None
  _: dataclasses.KW_ONLY
  op: str = 'add'
  value: Any = None
  unit: Any = 1.0
  positions: Any = None
  tap: Any = None
  direction: Any = None

  def __post_init__(self):
    if self.op not in edits_lib.OPS:
      _refuse('op', self.op, f'use one of {", ".join(edits_lib.OPS)}')
    _check_value(self.op, self.value, self.unit)
    if self.sae is None:
      self._check_direction()
    else:
      self._check_latent()

  def _check_latent(self):
    sae = self.sae
    if not isinstance(sae, dictionary.Dictionary):
      kind = type(sae).__name__
      _refuse('sae', kind, "pass one SAE, such as suite['resid_post', 28]")
    if self.tap is not None or self.direction is not None:
      name = 'tap' if self.tap is not None else 'direction'
      raise errors.UserError(
          f'Edit: {name}= is for directions; leave it out, or leave out sae='
      )
    try:
      latent = operator.index(self.latent)
    except TypeError:
      latent = -1
    if not 0 <= latent < sae.width:
      _refuse('latent', self.latent, f'{sae!r} has 0 to {sae.width - 1}')

  def _check_direction(self):
    if self.tap is None or self.direction is None:
      raise errors.UserError(
          'Edit: pass an SAE and a latent, or tap= and direction='
      )
    if self.latent is not None:
      _refuse('latent', self.latent, 'a latent needs its SAE, sae=')
    if self.op == edits_lib.Op.SET_IF_ACTIVE:
      _refuse('op', self.op, 'no direction is inactive; use set')
    direction = np.asarray(self.direction, np.float32)
    if direction.ndim != 1 or not np.isfinite(direction).all():
      _refuse('direction', direction.shape, 'pass one vector, finite')
    if not direction.any():
      _refuse('direction', 'zeros', 'pass one that is not zero')

  def __repr__(self) -> str:
    if self.sae is None:
      what, tap = 'direction', str(self.tap)
    else:
      what = f'latent {self.latent}'
      tap = lm.spell(self.sae.reads.targets)
    value = '' if self.value is None else f' {self.value:g}'
    unit = '' if self.unit == 1 else f' x {self.unit:g}'
    return f'Edit({what} at {tap}, {self.op}{value}{unit})'


class Compiled(NamedTuple):
  """Edits as the compiled passes take them (`evals/edits.py`)."""

  edited: tuple[edits_lib.Target, ...] = ()
  edit_arrays: tuple[edits_lib.Arrays, ...] = ()


def check(edits: Iterable[Edit], model: lm.LanguageModel) -> None:
  """Raises UserError if an SAE or a direction does not fit the model."""
  for edit in edits:
    if not isinstance(edit, Edit):
      _refuse('edits', type(edit).__name__, 'pass a list of jumprelu.Edit')
    if edit.sae is None:
      _tap(edit, model.config)
    else:
      dictionary.check_fit(edit.sae, model.config)
      _ = edit.sae.reads.input, edit.sae.reads.target  # Only one of each.


def compiled(
    edits: Iterable[Edit],
    model: lm.LanguageModel,
    *,
    length: int,
    limit: int | None = None,
) -> Compiled:
  """Returns the edits of a text as static parts and arrays.

  Args:
    edits: The edits, which fit the model (`check`).
    model: The language model.
    length: The number of tokens from whose end negative positions are counted.
    limit: The number of tokens that may be edited; `length` if None.

  Raises:
    UserError: A position is outside of the text.
  """
  groups: dict[Any, list[Edit]] = {}
  for edit in edits:
    key = _tap(edit, model.config) if edit.sae is None else edit.sae
    groups.setdefault(key, []).append(edit)
  limit = length if limit is None else limit
  parts = [
      (_target(key), _arrays(key, group, model, length, limit))
      for key, group in groups.items()
  ]
  return Compiled(tuple(t for t, _ in parts), tuple(a for _, a in parts))


def _target(key: Any) -> edits_lib.Target:
  if isinstance(key, lm.Tap):
    return edits_lib.Target(key)
  return edits_lib.Target(key.reads.target, key.sae, key.reads)


def _arrays(key, group, model, length, limit):
  if isinstance(key, lm.Tap):
    rows = np.stack([np.asarray(e.direction, np.float32) for e in group])
    params, latents = {'W_dec': rows}, list(range(len(group)))
  else:
    raw = key.reads.input_gain
    params = key.device_params if raw else key.to_raw(model)
    latents = [int(e.latent) for e in group]
  return edits_lib.arrays(
      params,
      latents,
      [edit.op for edit in group],
      [_raw_value(edit) for edit in group],
      [_spans(edit.positions, length, limit) for edit in group],
  )


def _raw_value(edit: Edit) -> float:
  """Returns the value in units of raw activations."""
  value = 0.0 if edit.value is None else float(edit.value)
  return value if edit.op == edits_lib.Op.SCALE else value * edit.unit


def _tap(edit: Edit, config: lm.LmConfig) -> lm.Tap:
  (tap,) = taps_lib.parse(edit.tap, config=config)
  size, width = len(np.asarray(edit.direction)), config.d_site(tap.site)
  if size != width:
    _refuse('direction', f'{size} entries', f'{tap} has {width}')
  return tap


def _spans(positions: Any, length: int, limit: int) -> list[tuple[int, int]]:
  """Returns the spans (start, stop) of positions."""
  if positions is None:
    return [(0, _END)]
  if isinstance(positions, slice):
    if positions.step not in (None, 1):
      _refuse('positions', positions, 'a slice must have step 1; pass a list')
    start, stop = positions.start, positions.stop
    start = 0 if start is None else _from_end(start, length)
    stop = _END if stop is None else _from_end(stop, length)
    return [(max(start, 0), max(stop, 0))]
  several = np.atleast_1d(np.asarray(positions))
  if several.ndim != 1 or several.dtype.kind not in 'iu' or not several.size:
    _refuse('positions', positions, 'pass integers, a slice, or None for all')
  resolved = [_from_end(int(p), length) for p in several]
  for position in resolved:
    if not 0 <= position < limit:
      _refuse('positions', positions, f'the text has tokens 0 to {limit - 1}')
  return [(position, position + 1) for position in sorted(set(resolved))]


def _from_end(position: int, length: int) -> int:
  return position + length if position < 0 else position


def _check_value(op: str, value: Any, unit: Any) -> None:
  if op == edits_lib.Op.ABLATE:
    if value is not None:
      _refuse('value', value, 'ablate has none; leave it out')
  elif not _is_finite(value):
    _refuse('value', value, f'{op} needs a finite number')
  if not _is_finite(unit) or not unit > 0:
    _refuse('unit', unit, 'pass a number above 0')


def _is_finite(value: Any) -> bool:
  try:
    return math.isfinite(value)
  except TypeError:
    return False


def _refuse(name: str, value: Any, cure: str) -> NoReturn:
  raise errors.UserError(f'Edit: {name}={value}: {cure}')
