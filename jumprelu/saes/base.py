"""What every SAE variant shares: parameters, affine maps, loss, folding.

An SAE is a frozen description; its parameters are a flat dict of arrays, so one
description serves a whole group: each method is pure and `jax.vmap` over a
leading `members` axis of the parameters trains the group. The loss is Gemma
Scope's (arXiv 2408.05147, equation 4), summed over dimensions, averaged over
rows:

  ||targets - decode(encode(inputs))||^2 + sparsity_coefficient * penalty
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.array_typing import Array, Bool, Float, Int32, Key, Num

Params = dict[str, Array]
Scalar = int | float | np.number | Num[Array, '']


@dataclasses.dataclass(frozen=True)
class Config:
  """Hyper-parameters that every variant has."""

  pre_encoder_bias: bool = dataclasses.field(
      default=True,
      metadata={
          'help': 'Subtract the decoder bias from the inputs; never done in'
          ' transcoders.'
      },
  )


class LossParts(NamedTuple):
  """What one batch tells about one SAE; loss = reconstruction + penalty."""

  loss: Float[Array, '']
  # Mean squared norm of the error over kept rows.
  reconstruction: Float[Array, '']
  # The sparsity term as it stands in the loss, coefficient included.
  penalty: Float[Array, '']
  # Mean number of active latents over kept rows.
  l0: Float[Array, '']
  # On how many kept rows each latent fired.
  fired: Int32[Array, ' latents']


@dataclasses.dataclass(frozen=True)
class Sae:
  """One SAE's shape and config: hashable, so it is a static argument of jit."""

  variant: ClassVar[str]

  config: Config
  d_in: int
  d_out: int
  width: int
  # Input and target are different sites: no tied init, no pre-encoder bias.
  transcoder: bool = False

  # What a variant fills in.

  def init_own_params(self, *, initial_threshold: Scalar) -> Params:
    """Make the parameters that only this variant has."""
    raise NotImplementedError

  def activate(
      self, params: Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Turn pre-activations into latents."""
    raise NotImplementedError

  def penalty(
      self,
      params: Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Give each row's sparsity penalty, with its gradient."""
    raise NotImplementedError

  def threshold(self, params: Params) -> Float[Array, ' latents']:
    """Give the linear threshold of each latent."""
    raise NotImplementedError

  def fold_own(
      self, params: Params, *, scale: Float[Array, ' latents']
  ) -> tuple['Sae', Params]:
    """Give the folded description and the variant's own parameters, scaled.

    `scale` is the factor by which each latent's pre-activations grow.
    """
    raise NotImplementedError

  def sparsity_term(
      self,
      mean_penalty: Float[Array, ''],
      *,
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
  ) -> Float[Array, '']:
    """Turn the mean penalty over kept rows into the loss's second term."""
    del target_l0
    return sparsity_coefficient * mean_penalty

  # What all share.

  @property
  def subtracts_decoder_bias(self) -> bool:
    """Whether the encoder sees the inputs minus the decoder bias."""
    return self.config.pre_encoder_bias and not self.transcoder

  def init_params(
      self, key: Key[Array, ''], *, initial_threshold: Scalar
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
    } | self.init_own_params(initial_threshold=initial_threshold)

  def pre_acts(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Apply the encoder's affine map, in float32 whatever the inputs' type.

    The pre-encoder bias enters as `b_dec @ W_enc`, as at release: subtracting
    it from the inputs would copy them once a member and cost the backward pass
    a whole matrix product for b_dec's gradient.
    """
    bias = params['b_enc']
    if self.subtracts_decoder_bias:
      bias = bias - _product(params['b_dec'], params['W_enc'])
    outputs = jnp.matmul(
        inputs, params['W_enc'], preferred_element_type=jnp.float32
    )
    return outputs + _for_rows(bias, outputs)

  def encode(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Compute the latents of each row."""
    return self.activate(params, self.pre_acts(params, inputs))

  def decode(
      self, params: Params, latents: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch target_model']:
    """Compute each row's reconstruction."""
    outputs = jnp.matmul(
        latents, params['W_dec'], preferred_element_type=jnp.float32
    )
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
  ) -> tuple[Float[Array, ''], LossParts]:
    """Compute the mean loss over the rows with `keep`.

    Rows without it must be finite (zeros); they then change nothing.
    """
    pre_acts = self.pre_acts(params, inputs)
    latents = self.activate(params, pre_acts)
    errors = self.decode(params, latents) - targets
    rows = jnp.maximum(keep.sum(dtype=jnp.int32), 1).astype(jnp.float32)

    def mean(values):
      return jnp.where(keep, values, 0.0).sum() / rows

    reconstruction = mean(jnp.square(errors).sum(axis=-1))
    penalty = self.sparsity_term(
        mean(self.penalty(params, pre_acts, latents)),
        sparsity_coefficient=sparsity_coefficient,
        target_l0=target_l0,
    )
    fired = ((latents != 0) & keep[:, None]).sum(axis=0, dtype=jnp.int32)
    total = reconstruction + penalty
    return total, LossParts(
        loss=total,
        reconstruction=reconstruction,
        penalty=penalty,
        l0=fired.sum().astype(jnp.float32) / rows,
        fired=fired,
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
    W_enc, W_dec = params['W_enc'], params['W_dec']
    norms = jnp.linalg.norm(W_dec, axis=-1)
    # A row of zeros has no direction to scale.
    norms = jnp.where(norms > 0, norms, 1.0)
    scale = target_scale * norms
    b_enc = params['b_enc']
    if self.subtracts_decoder_bias:
      b_enc = b_enc - _product(params['b_dec'], W_enc)
    folded, own = self.fold_own(params, scale=scale)
    return (
        folded,
        {
            'W_enc': W_enc * (scale / input_scale)[None, :],
            'b_enc': b_enc * scale,
            'W_dec': W_dec / norms[:, None],
            'b_dec': params['b_dec'] * target_scale,
        }
        | own,
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
