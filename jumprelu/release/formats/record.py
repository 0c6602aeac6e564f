"""What every format's reader gives, and how it makes it of its arrays."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors, lm, saes
from jumprelu.release.formats import tensors
from jumprelu.saes import base

Params = dict[str, np.ndarray]


class Origin(NamedTuple):
  """Which activations an SAE is for; None where nothing says it."""

  model: str | None = None
  layer: int | None = None
  site: str | None = None  # A key of `lm.SITES`.
  # Of a transcoder: whether its input has the gain of the norm before the MLP.
  input_gain: bool | None = None

  def over(self, other: 'Origin') -> 'Origin':
    """Returns this origin, with what it leaves open taken from `other`."""
    known = {k: v for k, v in self._asdict().items() if v is not None}
    return other._replace(**known)

  def reads(self) -> lm.Reads:
    """Returns the taps of a complete origin (`complete.complete`)."""
    if self.layer is None or self.site is None:
      raise ValueError(f'an origin that is not complete: {self}')
    gain = self.input_gain is not False
    return lm.make_reads(self.site, self.layer, input_gain=gain)


@dataclasses.dataclass(frozen=True)
class Released:
  """One SAE that reads raw activations, and what is known about it."""

  sae: base.Sae
  params: Mapping[str, Any]
  origin: Origin
  # For its row of results.
  meta: Mapping[str, Any]
  # Of a run of ours: its config.
  training: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Array -> its axes, by name. `W_enc` says the sizes of the first two and
# `W_dec` that of the third.
_AXES = {
    'W_enc': ('d_in', 'width'),
    'b_enc': ('width',),
    'W_dec': ('width', 'd_out'),
    'b_dec': ('d_out',),
    'threshold': ('width',),
    'W_skip': ('d_in', 'd_out'),
}
_NAMES = ('W_enc', 'b_enc', 'W_dec', 'b_dec', 'threshold')


def read_arrays(
    path: pathlib.Path,
    names: Mapping[str, str],
    *,
    axes: Mapping[str, tuple[str, ...]] | None = None,
    width: int | None = None,
) -> Params:
  """Reads the tensors of one SAE in float32, or names the one that is wrong.

  Args:
    path: A .npz or .safetensors file.
    names: Our name -> the file's, of all that the file must hold.
    axes: The axes of arrays that JumpReLU SAEs do not have.
    width: The width, if something besides the file says it.

  Raises:
    DataError: naming file, tensor, and what was found and wanted.
  """
  all_axes = _AXES | dict(axes or {})
  found = tensors.header(path)
  for name in found:
    if name not in names.values():
      raise errors.DataError(
          f'{path}: unexpected tensor {name}; wanted:'
          f' {", ".join(names.values())}'
      )
  sizes: dict[str, int] = {} if width is None else {'width': width}
  order = sorted(names, key=lambda n: (n != 'W_enc', n != 'W_dec'))
  for name in order:
    shape = found[names[name]][0] if names[name] in found else None
    wanted = tuple(sizes.get(axis, axis) for axis in all_axes[name])
    if shape is None:
      raise errors.DataError(
          f'{path}: tensor {names[name]} is missing; wanted: shape'
          f' {_show(wanted)}'
      )
    if len(shape) != len(wanted) or any(
        isinstance(w, int) and w != n
        for n, w in zip(shape, wanted, strict=True)
    ):
      raise errors.DataError(
          f'{path}: tensor {names[name]} has shape {_show(shape)}, wanted'
          f' {_show(wanted)}'
      )
    sizes |= dict(zip(all_axes[name], shape, strict=True))
  if not min(sizes.values()):
    raise errors.DataError(f'{path}: an SAE of no size: {sizes}')
  read = tensors.read(path, {n: found[n] for n in names.values()})
  return {name: read[theirs] for name, theirs in names.items()}


def _show(shape) -> str:
  return f'({", ".join(map(str, shape))})'


def make_jumprelu(
    params: Params, origin: Origin, meta: Mapping[str, Any]
) -> Released:
  """Makes an SAE of the five arrays of a JumpReLU, and of a skip term.

  The public formula is relu(z) [z > threshold]; ours has no relu, and is the
  same with negative thresholds raised to 0.
  """
  threshold = np.maximum(params['threshold'], 0)
  sae = saes.make_sae(
      'jumprelu',
      saes.jumprelu.Config(
          pre_encoder_bias=False, threshold_parameter='linear'
      ),
      d_in=params['W_enc'].shape[0],
      d_out=params['W_dec'].shape[1],
      width=params['W_enc'].shape[1],
      transcoder=origin.site == 'transcoder' or 'W_skip' in params,
      skip='W_skip' in params,
  )
  return Released(
      sae,
      params | {'threshold': threshold},
      origin,
      {'variant': 'jumprelu'} | dict(meta),
  )


def make_topk(
    params: Params, k: int, *, origin: Origin, meta: Mapping[str, Any]
) -> Released:
  """Makes a TopK SAE of four arrays: the k largest positive z of each row."""
  sae = saes.make_sae(
      'topk',
      saes.topk.Config(pre_encoder_bias=False, k=(float(k),)),
      d_in=params['W_enc'].shape[0],
      d_out=params['W_dec'].shape[1],
      width=params['W_enc'].shape[1],
      transcoder=origin.site == 'transcoder',
  )
  return Released(sae, params | {'k': np.float32(k)}, origin, meta)


def plain_names() -> dict[str, str]:
  """Returns the arrays of a JumpReLU under the names that they have here."""
  return dict(zip(_NAMES, _NAMES, strict=True))
