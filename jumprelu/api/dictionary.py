"""One dictionary, ready to use: arrays, encoding, decoding, and its origin."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.api import displays
from jumprelu.array_typing import Array, Float, Float32, Int, Num
from jumprelu.release.formats import record

# Arguments may also be lists of numbers, and integers.
Inputs = Num[np.ndarray, '*batch d_in'] | Num[Array, '*batch d_in'] | list[Any]
SomeLatents = (
    Num[np.ndarray, '*batch latents'] | Num[Array, '*batch latents'] | list[Any]
)
Latents = (
    Float32[np.ndarray, '*batch latents'] | Float32[Array, '*batch latents']
)
Outputs = Float32[np.ndarray, '*batch d_out'] | Float32[Array, '*batch d_out']


# Fields of an SAE's files that contain an L0, the best one first.
_L0_ORIGINS = {
    'l0': 'held-out text',
    'training_l0': 'mean of the last segment of training, not held-out text',
    'released_l0': "the number in the folder's name",
}


# Attributes that displays show.
_SHOWN = ('path', 'model', 'site', 'layer', 'width', 'variant', 'l0')


class SparseLatents(NamedTuple):
  """The active latents of rows of inputs, in order of rows.

  Attributes:
    row: The number of the row, counted over all leading axes of the inputs.
    latent: The number of the latent.
    value: The latent, in units of raw activations.
  """

  row: Int[np.ndarray, ' active'] | Int[Array, ' active']
  latent: Int[np.ndarray, ' active'] | Int[Array, ' active']
  value: Float32[np.ndarray, ' active'] | Float32[Array, ' active']


class Dictionary:
  """The part of `SAE`, which describes it, that needs no language model.

  Attributes:
    released: The record that the reader of its format returned.
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
    return self.released.reads()

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
    """Returns the latents [..., latents] of raw activations [..., d_in].

    Args:
      x: The activations, with any leading axes.

    Raises:
      UserError: The last axis has another size than d_in.

    >>> x = acts.inputs[1:]  # Without BOS.
    >>> latents = sae.encode(x)
    >>> latents.shape
    (12, 512)
    >>> import jax
    >>> jax.grad(lambda x: sae.encode(x).sum())(jax.numpy.array(x)).shape
    (12, 128)
    """
    x = self._array(x, self.sae.d_in, 'd_in')
    return _like(x, _encode(self.sae, self.device_params, x))

  def encode_sparse(
      self, x: Inputs, *, size: int | None = None
  ) -> SparseLatents:
    """Returns only the active latents of raw activations [..., d_in].

    Args:
      x: The activations, with any leading axes.
      size: The number of entries to return, which must be fixed under `jit`,
        `grad` and `vmap`. Entries after the last active latent have the value
        0, and a row and a latent one after the last; entries beyond `size` are
        dropped. None returns as many as there are.

    Raises:
      UserError: The last axis has another size than d_in, or `size` is missing
        under a transformation.

    >>> sparse = sae.encode_sparse(acts.inputs[1:])
    >>> sparse.row.shape == sparse.latent.shape == sparse.value.shape
    True
    """
    latents = self.encode(x)
    flat = latents.reshape(-1, self.width)
    if isinstance(flat, np.ndarray) and size is None:
      row, latent = np.nonzero(flat)
      return SparseLatents(row, latent, flat[row, latent])
    if isinstance(flat, jax.core.Tracer) and size is None:
      raise errors.UserError(
          'encode_sparse under jit, grad or vmap: pass size=, the number of'
          ' entries to return'
      )
    flat = jnp.asarray(flat)
    row, latent = jnp.nonzero(flat, size=size, fill_value=flat.shape)
    value = flat.at[row, latent].get(mode='fill', fill_value=0)
    if isinstance(latents, np.ndarray):
      return SparseLatents(*map(np.asarray, (row, latent, value)))
    return SparseLatents(row, latent, value)

  def decode(
      self, latents: SomeLatents, inputs: Inputs | None = None
  ) -> Outputs:
    """Returns the reconstruction [..., d_out] of latents [..., latents].

    Args:
      latents: The latents, with any leading axes.
      inputs: The activations that the latents were encoded from; only SAEs with
        a skip term need them.

    Raises:
      UserError: An axis has the wrong size, or `inputs` are missing.

    >>> sae.decode(acts.latents).shape
    (13, 128)
    """
    latents = self._array(latents, self.width, 'latents')
    if inputs is not None:
      inputs = self._array(inputs, self.sae.d_in, 'd_in')
    elif self.sae.skip:
      raise errors.UserError(
          'this transcoder has a skip term: pass its inputs to decode'
      )
    else:
      inputs = np.zeros((*latents.shape[:-1], self.sae.d_in), np.float32)
    return _like(
        latents, _decode(self.sae, self.device_params, latents, inputs)
    )

  def to_raw(self, language_model: lm.LanguageModel) -> dict[str, np.ndarray]:
    """Returns parameters for inputs that include the norm's gain."""
    if self.reads.input_gain:
      return self.params
    gains = lm.input_gains(
        language_model.config, language_model.params, self.reads
    )
    return dict(self.sae.read_times(self.params, gains))

  @functools.cached_property
  def device_params(self) -> dict[str, Array]:
    """The parameters on the device, transferred at the first use."""
    # Evaluated at once because the first use may be inside `jit`.
    with jax.ensure_compile_time_eval():
      return {name: jnp.asarray(x) for name, x in self.params.items()}

  def _array(self, x: Any, size: int, name: str) -> Any:
    """Returns `x` as a float array whose last axis has `size` entries."""
    if not isinstance(x, jax.Array | np.ndarray):
      x = np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
      x = x.astype(np.float32)
    if x.shape[-1:] != (size,):
      raise errors.UserError(
          f'shape {x.shape}: the last axis must have {size} entries, the {name}'
          f' of {self!r}'
      )
    return x

  def __repr__(self) -> str:
    l0 = '' if self.l0 is None else f', L0 {self.l0:.1f}'
    if self.l0_origin.startswith('mean of'):
      l0 += ' in training'
    place = '' if self.site is None else f'{self.site}, layer {self.layer}, '
    name = pathlib.PurePath(self.model).name if self.model else 'unknown model'
    return f'SAE({name}, {place}{self.width:,} latents, {self.variant}{l0})'

  def _repr_html_(self) -> str:
    values: dict[str, Any] = {name: getattr(self, name) for name in _SHOWN}
    if self.l0 is not None:
      values['l0'] = f'{self.l0:.2f} ({self.l0_origin})'
    for name in ('fvu', 'delta_loss'):
      if isinstance(self.config.get(name), float):
        values[name] = f'{self.config[name]:.4g}'
    shown = {name: value for name, value in values.items() if value is not None}
    return displays.fields('SAE', shown)

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    return displays.constructor(self, _SHOWN, path, subtree_renderer)


def check_fit(sae: Any, config: lm.LmConfig) -> None:
  """Raises UserError if a model has no activations of the SAE's sizes."""
  if not isinstance(sae, Dictionary):
    raise errors.UserError(
        f'sae is a {type(sae).__name__}: pass one SAE, such as'
        " suite['resid_post', 28]"
    )
  reads = sae.reads
  for taps, size in (
      (reads.inputs, sae.sae.d_in),
      (reads.targets, sae.sae.d_out),
  ):
    known = sum(
        config.d_site(tap.site)
        for tap in taps
        if 0 <= tap.layer < config.layers
    )
    if known != size:
      raise errors.UserError(
          f'{sae!r} has {size} dimensions at {lm.spell(taps)}, {config.name}'
          f' has {known}'
      )


@functools.partial(jax.jit, static_argnums=0)
def _encode(sae, params, x):
  return sae.encode(params, x.astype(jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def _decode(sae, params, latents, inputs):
  latents, inputs = latents.astype(jnp.float32), inputs.astype(jnp.float32)
  return sae.decode(params, latents, inputs)


def _like(x: Any, result: jax.Array) -> Any:
  """Returns a JAX array for a JAX input, else a NumPy array."""
  return result if isinstance(x, jax.Array) else np.asarray(result)
