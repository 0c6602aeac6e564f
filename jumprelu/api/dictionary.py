"""One dictionary, ready to use: arrays, encoding, decoding, and its origin."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, lm
from jumprelu.array_typing import Array, Float, Int
from jumprelu.release.formats import record

Inputs = Float[np.ndarray, '*batch d_in'] | Float[Array, '*batch d_in']
Latents = Float[np.ndarray, '*batch latents'] | Float[Array, '*batch latents']
Outputs = Float[np.ndarray, '*batch d_out'] | Float[Array, '*batch d_out']


# Fields of an SAE's files that contain an L0, the best one first.
_L0_ORIGINS = {
    'l0': 'held-out text',
    'training_l0': 'mean of the last segment of training, not held-out text',
    'released_l0': "the number in the folder's name",
}


class SparseLatents(NamedTuple):
  """The active latents of rows of inputs, in order of rows.

  Attributes:
    row: The number of the row, counted over all leading axes of the inputs.
    latent: The number of the latent.
    value: The latent, in units of raw activations.
  """

  row: Int[np.ndarray, ' active']
  latent: Int[np.ndarray, ' active']
  value: Float[np.ndarray, ' active']


class Dictionary:
  """An SAE or transcoder on raw activations of a language model.

  Activation scales are folded in: `encode` reads activations as the model
  computes them, and `decode` returns activations of the same units. Results are
  NumPy arrays, unless the input is a JAX array: then they are JAX arrays, also
  inside `jit`, `grad` and `vmap`.

  Attributes:
    path: Its path in the suite.
    site: `resid_post`, `mlp_out`, `attn_heads` or `transcoder`.
    layer: The layer that it reads, from 0.
    model: The name or folder of the language model.
    variant: A key of `jumprelu.VARIANTS`.
    l0: Mean number of active latents; None if unknown.
    l0_origin: The origin of `l0`: held-out text, training, or a folder's name.
    config: Everything that the files say: results and the training config.
    released: The record that the reader of its format returned.
    params: All arrays by name, float32.
  """

  def __init__(
      self,
      released: record.Released,
      *,
      path: str = '',
      results: Mapping[str, Any] | None = None,
  ):
    self.released = released
    self.path = path
    self.sae = released.sae
    self.params = {k: np.asarray(v) for k, v in released.params.items()}
    self.site = released.origin.site
    self.layer = released.origin.layer
    self.model = released.origin.model
    self.variant = released.sae.variant
    self.config = {
        **released.meta,
        **(results or {}),
        'training': dict(released.training),
    }
    known = [name for name in _L0_ORIGINS if self.config.get(name) is not None]
    self.l0 = float(self.config[known[0]]) if known else None
    self.l0_origin = _L0_ORIGINS[known[0]] if known else ''

  @property
  def width(self) -> int:
    """The number of latents."""
    return self.sae.width

  @property
  def reads(self) -> lm.Reads:
    """The taps that the SAE reads and reconstructs.

    Raises:
      UserError: Layer or site are unknown.
    """
    if self.layer is None or self.site is None:
      raise errors.UserError(
          f'{self.path or "this SAE"}: layer and site are not named by its'
          ' files or folders; pass layer= and site= to jumprelu.load'
      )
    return self.released.origin.reads()

  @property
  def W_enc(self) -> Float[np.ndarray, 'd_in latents']:
    """The encoder."""
    return self.params['W_enc']

  @property
  def W_dec(self) -> Float[np.ndarray, 'latents d_out']:
    """The decoder; a row is the direction that a latent adds."""
    return self.params['W_dec']

  @property
  def b_enc(self) -> Float[np.ndarray, ' latents']:
    """The encoder's bias."""
    return self.params['b_enc']

  @property
  def b_dec(self) -> Float[np.ndarray, ' d_out']:
    """The decoder's bias."""
    return self.params['b_dec']

  @property
  def threshold(self) -> Float[np.ndarray, ' latents']:
    """The thresholds that pre-activations must exceed (2407.14435, eq. 4).

    Raises:
      UserError: The variant has no thresholds, for example TopK.
    """
    if 'threshold' not in self.params:
      raise errors.UserError(f'{self.variant} SAEs have no thresholds')
    return self.params['threshold']

  def encode(self, x: Inputs) -> Latents:
    """Returns the latents [..., latents] of raw activations [..., d_in]."""
    self._check(x, self.sae.d_in, 'd_in')
    return _like(x, _encode(self.sae, self.params, x))

  def encode_sparse(self, x: Inputs) -> SparseLatents:
    """Returns only the active latents of raw activations [..., d_in]."""
    latents = np.asarray(self.encode(np.asarray(x)))
    flat = latents.reshape(-1, self.width)
    row, latent = np.nonzero(flat)
    return SparseLatents(row, latent, flat[row, latent])

  def decode(self, latents: Latents, inputs: Inputs | None = None) -> Outputs:
    """Returns the reconstruction [..., d_out] of latents [..., latents].

    Args:
      latents: The latents.
      inputs: The activations that the latents were encoded from; only SAEs with
        a skip term need them.
    """
    self._check(latents, self.width, 'latents')
    if inputs is None:
      if self.sae.skip:
        raise errors.UserError(
            'this transcoder has a skip term: pass its inputs to decode'
        )
      inputs = np.zeros((*latents.shape[:-1], self.sae.d_in), np.float32)
    return _like(latents, _decode(self.sae, self.params, latents, inputs))

  def to_raw(self, language_model: lm.LanguageModel) -> dict[str, np.ndarray]:
    """Returns parameters for inputs that include the norm's gain."""
    if self.reads.input_gain:
      return self.params
    gains = lm.input_gains(
        language_model.config, language_model.params, self.reads
    )
    return dict(self.sae.read_times(self.params, gains))

  def _check(self, x: Any, size: int, name: str) -> None:
    if x.shape[-1] != size:
      raise errors.UserError(
          f'the last axis has {x.shape[-1]} entries; {name} is {size}'
      )

  def __repr__(self) -> str:
    l0 = '' if self.l0 is None else f', L0 {self.l0:.1f}'
    if self.l0_origin.startswith('mean of'):
      l0 += ' in training'
    place = '' if self.site is None else f'{self.site}, layer {self.layer}, '
    name = pathlib.PurePath(self.model).name if self.model else 'unknown model'
    return f'SAE({name}, {place}{self.width:,} latents, {self.variant}{l0})'


@functools.partial(jax.jit, static_argnums=0)
def _encode(sae, params, x):
  return sae.encode(params, x)


@functools.partial(jax.jit, static_argnums=0)
def _decode(sae, params, latents, inputs):
  return sae.decode(params, latents, inputs)


def _like(x: Any, result: jax.Array) -> Any:
  """Returns a JAX array for a JAX input, else a NumPy array."""
  return result if isinstance(x, jax.Array) else np.asarray(result)
