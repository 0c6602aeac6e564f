"""The SAE record that every reader returns, and functions that build it."""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors, lm, saes
from jumprelu.release.formats import tensors
from jumprelu.saes import base

Params = dict[str, np.ndarray]


class Origin(NamedTuple):
  """The activations that an SAE reads; unknown values are None."""

  model: str | None = None
  layer: int | None = None
  site: str | None = None  # A key of `lm.SITES`.
  # Whether the input of a transcoder includes the gain of the norm before the
  # MLP.
  input_gain: bool | None = None

  def over(self, other: 'Origin') -> 'Origin':
    """Returns this origin, with unknown values filled in from `other`."""
    known = {k: v for k, v in self._asdict().items() if v is not None}
    return other._replace(**known)

  def reads(self) -> lm.Reads:
    """Returns the taps of the input and target.

    Raises:
      ValueError: the layer or the site is unknown.
    """
    if self.layer is None or self.site is None:
      raise ValueError(f'incomplete origin: {self}')
    gain = self.input_gain is not False
    return lm.make_reads(self.site, self.layer, input_gain=gain)


@dataclasses.dataclass(frozen=True)
class Released:
  """One SAE that reads raw activations, with its origin and settings."""

  sae: base.Sae
  params: Mapping[str, Any]
  origin: Origin
  # Columns to add to the SAE's row of results.
  meta: Mapping[str, Any]
  # The config of the training run; empty unless the release is our own.
  training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # The largest norms of the rows that the SAE was trained on (`lm.Reads`).
  limits: tuple[tuple[lm.Tap, float], ...] = ()

  def reads(self) -> lm.Reads:
    """Returns the taps of input and target; see `Origin.reads`."""
    return dataclasses.replace(self.origin.reads(), limits=self.limits)

  def digest(self) -> str:
    """Returns a SHA-256 of the names, types, shapes and bytes of the arrays."""
    digest = hashlib.sha256()
    for name in sorted(self.params):
      array = np.ascontiguousarray(self.params[name])
      shape = np.shape(self.params[name])
      digest.update(f'{name} {array.dtype} {shape} '.encode())
      digest.update(array.tobytes())
    return digest.hexdigest()


# The axes of each array. `W_enc` determines the sizes of d_in and width, and
# `W_dec` that of d_out; all other arrays must agree with these sizes.
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
  """Reads the tensors of one SAE as float32.

  Args:
    path: A .npz or .safetensors file.
    names: The name of each tensor in the file, by our name. The file must hold
      exactly these tensors.
    axes: The axes of tensors that `_AXES` lacks or describes differently.
    width: The number of latents, if another file states it.

  Raises:
    MissingInputError: the file does not exist.
    DataError: a tensor is invalid; the message names the file, the tensor, its
      shape or type, and the expected one.
  """
  all_axes = _AXES | dict(axes or {})
  headers = tensors.header(path)
  for name in headers:
    if name not in names.values():
      raise errors.DataError(
          f'{path}: unexpected tensor {name}; wanted:'
          f' {", ".join(names.values())}'
      )
  sizes: dict[str, int] = {} if width is None else {'width': width}
  order = sorted(names, key=lambda n: (n != 'W_enc', n != 'W_dec'))
  for name in order:
    shape = headers[names[name]][0] if names[name] in headers else None
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
    raise errors.DataError(
        f'{path}: the tensors have an empty axis: {sizes}; wanted sizes of at'
        ' least 1'
    )
  arrays = tensors.read(path, {n: headers[n] for n in names.values()})
  return {name: arrays[theirs] for name, theirs in names.items()}


def _show(shape: Iterable[int | str]) -> str:
  return f'({", ".join(map(str, shape))})'


def make_jumprelu(
    params: Params, origin: Origin, meta: Mapping[str, Any]
) -> Released:
  """Returns the JumpReLU SAE with these arrays, which may have a skip term.

  Published SAEs compute relu(z) [z > threshold], and ours z [z > threshold].
  The two are equal once negative thresholds are raised to 0.
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
  """Returns the TopK SAE with these arrays and `k` active latents per row."""
  sae = saes.make_sae(
      'topk',
      saes.topk.Config(pre_encoder_bias=False, k=(float(k),)),
      d_in=params['W_enc'].shape[0],
      d_out=params['W_dec'].shape[1],
      width=params['W_enc'].shape[1],
      transcoder=origin.site == 'transcoder',
  )
  return Released(sae, params | {'k': np.float32(k)}, origin, meta)


def from_gates(params: Params) -> Params:
  """Returns the arrays of the JumpReLU SAE that equals a Gated SAE."""
  gain = np.exp(params['r_mag'].astype(np.float64))
  threshold = params['b_mag'] - gain * params['b_gate']
  return {
      'W_enc': (params['W_enc'] * gain).astype(np.float32),
      'b_enc': params['b_mag'],
      'W_dec': params['W_dec'],
      'b_dec': params['b_dec'],
      'threshold': threshold.astype(np.float32),
  }


def plain_names() -> dict[str, str]:
  """Returns the names of a JumpReLU SAE's arrays, mapped to themselves.

  They are the `names` of `read_arrays` for files that use our names.
  """
  return dict(zip(_NAMES, _NAMES, strict=True))
