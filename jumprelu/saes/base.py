"""What every SAE variant shares: parameters, affine maps, loss, folding.

An SAE is a frozen description; its parameters are a flat dict of arrays, so one
description serves a whole group: each method is pure and `jax.vmap` over a
leading `members` axis of the parameters trains the group. The loss is Gemma
Scope's (arXiv 2408.05147, equation 4), summed over dimensions, averaged over
rows:

  ||targets - decode(encode(inputs))||^2 + sparsity_coefficient * penalty

and whatever else a variant's paper adds (`auxiliary_loss`).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32, Key
from jumprelu.ops import products
from jumprelu.saes import protocol
from jumprelu.saes.protocol import (
    Config,
    LossParts,
    Params,
    Rows,
    Scalar,
    kept_mean,
)

__all__ = [
    'Config', 'LossParts', 'Params', 'Rows', 'Sae', 'Scalar', 'kept_mean',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sae(protocol.Variant):
  """One SAE's shape and config: hashable, so it is a static argument of jit."""

  @property
  def subtracts_decoder_bias(self) -> bool:
    """Whether the encoder sees the inputs minus the decoder bias."""
    return self.config.pre_encoder_bias and not self.transcoder

  def init_params(
      self,
      key: Key[Array, ''],
      *,
      initial_threshold: Scalar,
      target_l0: Scalar = 1.0,
  ) -> Params:
    """Draw initial parameters (Gemma Scope, section 3.2).

    Decoder rows are He-uniform, then scaled to unit norm, which leaves of He's
    bound only its shape; biases are zero. The encoder starts as the decoder's
    transpose; a transcoder's starts as a draw of its own.
    """
    decoder_key, encoder_key = jax.random.split(key)
    W_dec = _unit_uniform(decoder_key, self.width, self.d_out)
    if self.transcoder:
      W_enc = _unit_uniform(encoder_key, self.width, self.d_in).T
    else:
      W_enc = W_dec.T
    return {
        'W_enc': W_enc,
        'b_enc': jnp.zeros(self.width, jnp.float32),
        'W_dec': W_dec,
        'b_dec': jnp.zeros(self.d_out, jnp.float32),
    } | self.init_own_params(
        initial_threshold=initial_threshold, target_l0=target_l0
    )

  def bias_shift(
      self, params: Params, encoder: str = 'W_enc'
  ) -> Float[Array, ' latents'] | float:
    """Give what the pre-encoder bias takes from an encoder's outputs."""
    if not self.subtracts_decoder_bias:
      return 0.0
    return _product(params['b_dec'], params[encoder])

  def pre_acts(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Apply the encoder's affine map."""
    return self.affine(params, inputs, encoder='W_enc', bias='b_enc')

  def affine(
      self,
      params: Params,
      inputs: Float[Array, '*batch model'],
      *,
      encoder: str,
      bias: str,
  ) -> Float[Array, '*batch latents']:
    """Apply an encoder and a bias, in float32 whatever the inputs' type.

    The pre-encoder bias enters as `b_dec @ W_enc`, as at release: subtracting
    it from the inputs would copy them once a member and cost the backward pass
    a whole matrix product for b_dec's gradient.
    """
    shifted = params[bias] - self.bias_shift(params, encoder)
    outputs = products.matmul(inputs, params[encoder])
    return outputs + _for_rows(shifted, outputs)

  def read_times(
      self, params: Mapping[str, Any], gain: Float[Array, ' model']
  ) -> dict[str, Any]:
    """Make parameters for inputs that are `gain` times those of `params`."""
    rows = gain[:, None]
    read = {name: params[name] / rows for name in self.encoders}
    return dict(params) | read

  def encode(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Compute the latents of each row."""
    return self.latents(params, self.pre_acts(params, inputs), inputs=inputs)

  def decode(
      self, params: Params, latents: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch target_model']:
    """Compute each row's reconstruction."""
    outputs = products.matmul(latents, params['W_dec'])
    return outputs + _for_rows(params['b_dec'], outputs)

  def loss(
      self,
      params: Params,
      inputs: Float[Array, 'batch model'],
      targets: Float[Array, 'batch target_model'],
      *,
      keep: Bool[Array, ' batch'],
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
      silent: Int32[Array, ' latents'] | None = None,
  ) -> tuple[Float[Array, ''], LossParts]:
    """Compute the mean loss over the rows with `keep`.

    Rows without it must be finite (zeros); they then change nothing. `silent`
    counts kept rows since each latent fired; without it none is dead.
    """
    if silent is None:
      silent = jnp.zeros(self.width, jnp.int32)
    pre_acts = self.pre_acts(params, inputs)
    latents = self.batch_latents(params, pre_acts, inputs=inputs, keep=keep)
    errors = self.decode(params, latents) - targets
    reconstruction = kept_mean(jnp.square(errors).sum(axis=-1), keep)
    penalty = self.sparsity_loss(
        params,
        pre_acts,
        latents,
        keep=keep,
        sparsity_coefficient=sparsity_coefficient,
        target_l0=target_l0,
    )
    auxiliary = self.auxiliary_loss(
        params,
        pre_acts,
        latents,
        rows=protocol.Rows(targets, errors, keep, silent),
    )
    active = (latents != 0) & keep[:, None]
    total = reconstruction + penalty + auxiliary
    return total, LossParts(
        loss=total,
        reconstruction=reconstruction,
        penalty=penalty,
        auxiliary=auxiliary,
        l0=kept_mean(active.sum(axis=-1).astype(jnp.float32), keep),
        fired=active.sum(axis=0, dtype=jnp.int32),
        carried=self.carry(params, latents),
    )

  def fold(
      self, params: Params, *, input_scale: Scalar, target_scale: Scalar
  ) -> tuple['Sae', Params]:
    """Make the SAE of raw activations from one of scaled activations.

    Trained on inputs / C_x and targets / C_y, the folded SAE takes raw inputs
    and gives C_y times the latents and the raw reconstruction (Gemma Scope,
    appendix A, which has C_x = C_y). It has no pre-encoder bias, unit-norm
    decoder rows and linear thresholds. It is for use: a bandwidth or a
    sparsity coefficient keeps its meaning on scaled activations only.
    """
    W_dec = params['W_dec']
    norms = jnp.linalg.norm(W_dec, axis=-1)
    # A row of zeros has no direction to scale.
    norms = jnp.where(norms > 0, norms, 1.0)
    scale = target_scale * norms
    b_enc = params['b_enc'] - self.bias_shift(params)
    factor = (scale / input_scale)[None, :]
    return (
        dataclasses.replace(self, config=self.folded_config()),
        {
            **{name: params[name] * factor for name in self.encoders},
            'b_enc': b_enc * scale,
            'W_dec': W_dec / norms[:, None],
            'b_dec': params['b_dec'] * target_scale,
        }
        | self.fold_own(params, scale=scale),
    )


def _unit_uniform(
    key: Key[Array, ''], rows: int, size: int
) -> Float[Array, 'rows size']:
  """Draw rows uniformly from a cube, then scale each to unit norm."""
  draw = jax.random.uniform(key, (rows, size), jnp.float32, -1.0, 1.0)
  return draw / jnp.linalg.norm(draw, axis=-1, keepdims=True)


def _product(
    vector: Float[Array, ' model'], matrix: Float[Array, 'model latents']
) -> Float[Array, ' latents']:
  """Multiply at full precision: it shifts every row's pre-activations."""
  return jnp.matmul(vector, matrix, precision=jax.lax.Precision.HIGHEST)


def _for_rows(
    vector: Float[Array, ' size'], like: Float[Array, '*batch size']
) -> Float[Array, '*ones size']:
  """Give a vector the rank of `like`."""
  return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
