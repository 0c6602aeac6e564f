"""The base class of SAE variants: shared methods, and methods to override.

An `Sae` holds the shape and config of an SAE. Its parameters are a flat dict of
arrays, which every method takes as an argument. SAEs that differ only in their
parameters are the members of a group: their parameters are stacked along a
leading `members` axis, and `jax.vmap` over this axis trains them together.

The loss is Gemma Scope's (arXiv 2408.05147, equation 4), in which squared
errors are summed over dimensions and averaged over rows:

  ||targets - decode(encode(inputs))||^2 + sparsity_coefficient * penalty

A variant may add a third term (`auxiliary_loss`). Values that a variant updates
without gradients, such as a running threshold, are also parameters, so that
they are stored, sharded, resumed and folded (see `fold`) like the others.
"""

import abc
from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jumprelu.array_typing import Array, Bool, Float, Int32, Key
from jumprelu.ops import products
from jumprelu.saes.parts import (
    Config,
    LossParts,
    Params,
    Rows,
    Scalar,
    for_rows,
    kept_mean,
    unit_uniform,
)

__all__ = [
    'Config', 'LossParts', 'Params', 'Rows', 'Sae', 'Scalar', 'kept_mean',
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sae(abc.ABC):
  """The shape and config of an SAE, hashable as a static argument of `jit`."""

  variant: ClassVar[str]
  # Parameters that the optimiser does not update.
  untrained: ClassVar[tuple[str, ...]] = ()

  config: Config
  d_in: int
  d_out: int
  width: int
  # Whether targets differ from inputs. A transcoder's encoder does not start as
  # the decoder's transpose, and it has no pre-encoder bias.
  transcoder: bool = False
  # Whether the reconstruction has the additional term `inputs @ W_skip`.
  skip: bool = False

  # Methods that every variant defines.

  @abc.abstractmethod
  def init_own_params(
      self, *, initial_threshold: Scalar, target_l0: Scalar
  ) -> Params:
    """Returns the parameters that only this variant has."""

  @abc.abstractmethod
  def activate(
      self, params: Params, pre_acts: Float[Array, '*batch latents']
  ) -> Float[Array, '*batch latents']:
    """Returns the latents, computed from the pre-activations."""

  @abc.abstractmethod
  def penalty(
      self,
      params: Params,
      pre_acts: Float[Array, '*batch latents'],
      latents: Float[Array, '*batch latents'],
  ) -> Float[Array, '*batch']:
    """Returns each row's sparsity penalty, which is differentiable."""

  @abc.abstractmethod
  def fold_own(
      self, params: Params, *, scale: Float[Array, ' latents']
  ) -> Params:
    """Returns the folded SAE's parameters that only this variant has.

    `params` are not folded. Folding multiplies pre-activations by `scale`.
    """

  # Methods that a variant may override.

  def sparsity_term(
      self,
      mean_penalty: Float[Array, ''],
      *,
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
  ) -> Float[Array, '']:
    """Returns the loss's second term from the mean penalty of the kept rows."""
    del target_l0
    return sparsity_coefficient * mean_penalty

  def folded_config(self) -> Config:
    """Returns the config of the folded SAE."""
    return dataclasses.replace(self.config, pre_encoder_bias=False)

  @property
  def unit_norm_decoder(self) -> bool:
    """Whether the optimiser keeps the decoder's rows at unit norm."""
    return True

  @property
  def encoders(self) -> tuple[str, ...]:
    """Returns the names of the encoder matrices, [model, latents] each."""
    return ('W_enc',)

  def latents(
      self,
      params: Params,
      pre_acts: Float[Array, '*batch latents'],
      *,
      inputs: Float[Array, '*batch model'],
  ) -> Float[Array, '*batch latents']:
    """Returns the latents; some variants need the inputs to compute them."""
    del inputs
    return self.activate(params, pre_acts)

  def batch_latents(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      *,
      inputs: Float[Array, 'batch model'],
      keep: Bool[Array, ' batch'],
  ) -> Float[Array, 'batch latents']:
    """Returns the latents in training, which may depend on all kept rows."""
    del keep
    return self.latents(params, pre_acts, inputs=inputs)

  def sparsity_loss(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      keep: Bool[Array, ' batch'],
      sparsity_coefficient: Scalar,
      target_l0: Scalar,
  ) -> Float[Array, '']:
    """Returns the loss's second term."""
    return self.sparsity_term(
        kept_mean(self.penalty(params, pre_acts, latents), keep),
        sparsity_coefficient=sparsity_coefficient,
        target_l0=target_l0,
    )

  def auxiliary_loss(
      self,
      params: Params,
      pre_acts: Float[Array, 'batch latents'],
      latents: Float[Array, 'batch latents'],
      *,
      rows: Rows,
  ) -> Float[Array, '']:
    """Returns the loss's third term, by default 0."""
    del params, pre_acts, latents, rows
    return jnp.float32(0)

  def carry(
      self, params: Params, latents: Float[Array, 'batch latents']
  ) -> Params:
    """Returns new values of the parameters that are updated without gradients.

    These parameters are listed in `untrained`. `latents` are the result of
    `batch_latents`.
    """
    del params, latents
    return {}

  def to_jumprelu(self, params: Params) -> tuple[Any, Params] | None:
    """Returns the JumpReLU SAE that equals this folded SAE, or None."""
    del params
    return None

  # Methods that all variants share.

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
    """Returns initial parameters (Gemma Scope, section 3.2).

    Decoder rows are drawn as in He's uniform initialisation and then scaled to
    unit norm, so its bound does not matter. Biases and the skip term are zero.
    The encoder is the decoder's transpose, except that a transcoder's encoder
    is drawn independently.
    """
    decoder_key, encoder_key = jax.random.split(key)
    W_dec = unit_uniform(decoder_key, self.width, self.d_out)
    if self.transcoder:
      W_enc = unit_uniform(encoder_key, self.width, self.d_in).T
    else:
      W_enc = W_dec.T
    params = {
        'W_enc': W_enc,
        'b_enc': jnp.zeros(self.width, jnp.float32),
        'W_dec': W_dec,
        'b_dec': jnp.zeros(self.d_out, jnp.float32),
    }
    if self.skip:
      params['W_skip'] = jnp.zeros((self.d_in, self.d_out), jnp.float32)
    return params | self.init_own_params(
        initial_threshold=initial_threshold, target_l0=target_l0
    )

  def param_axes(self) -> dict[str, tuple[str, ...]]:
    """Returns the logical axes of each parameter, without `members`."""
    # A variant's parameters are scalars or vectors over latents.
    variant_params = jax.eval_shape(
        lambda: self.init_own_params(initial_threshold=1.0, target_l0=1.0)
    )
    return {
        **{name: ('latents',)[: x.ndim] for name, x in variant_params.items()},
        **dict.fromkeys(self.encoders, ('model', 'latents')),
        'b_enc': ('latents',),
        'W_dec': ('latents', 'target_model'),
        'b_dec': ('target_model',),
        **({'W_skip': ('model', 'target_model')} if self.skip else {}),
    }

  def bias_shift(
      self, params: Params, encoder: str = 'W_enc'
  ) -> Float[Array, ' latents'] | float:
    """Returns `b_dec @ encoder`, or 0 for an SAE without a pre-encoder bias."""
    if not self.subtracts_decoder_bias:
      return 0.0
    # At full precision, because it shifts the pre-activations of every row.
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(params['b_dec'], params[encoder], precision=highest)

  def pre_acts(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Returns `(inputs - b_dec) @ W_enc + b_enc`; see `affine`."""
    return self.affine(params, inputs, encoder='W_enc', bias='b_enc')

  def affine(
      self,
      params: Params,
      inputs: Float[Array, '*batch model'],
      *,
      encoder: str,
      bias: str,
  ) -> Float[Array, '*batch latents']:
    """Returns `(inputs - b_dec) @ encoder + bias`, always in float32.

    Without a pre-encoder bias, `b_dec` is left out. With it, `bias_shift` is
    subtracted from the bias, because subtracting `b_dec` from the inputs would
    copy them once per member and cost the backward pass a whole matrix product
    for the gradient of `b_dec`.
    """
    shifted = params[bias] - self.bias_shift(params, encoder)
    outputs = products.matmul(inputs, params[encoder])
    return outputs + for_rows(shifted, outputs)

  def read_times(
      self, params: Mapping[str, Any], gain: Float[Array, ' model']
  ) -> dict[str, Any]:
    """Returns parameters that undo a multiplication of the inputs by `gain`.

    Raises:
      ValueError: The SAE has a pre-encoder bias, which folding removes.
    """
    if self.subtracts_decoder_bias:
      raise ValueError('fold the SAE first: it has a pre-encoder bias')
    names = (*self.encoders, *(('W_skip',) if self.skip else ()))
    return dict(params) | {name: params[name] / gain[:, None] for name in names}

  def encode(
      self, params: Params, inputs: Float[Array, '*batch model']
  ) -> Float[Array, '*batch latents']:
    """Returns the latents of each row."""
    return self.latents(params, self.pre_acts(params, inputs), inputs=inputs)

  def decode(
      self,
      params: Params,
      latents: Float[Array, '*batch latents'],
      inputs: Float[Array, '*batch model'] | None = None,
  ) -> Float[Array, '*batch target_model']:
    """Returns each row's reconstruction; a skip term needs the inputs."""
    outputs = products.matmul(latents, params['W_dec'])
    outputs = outputs + for_rows(params['b_dec'], outputs)
    return self.add_skip(params, outputs, inputs)

  def add_skip(
      self,
      params: Params,
      outputs: Float[Array, '*batch target_model'],
      inputs: Float[Array, '*batch model'] | None,
  ) -> Float[Array, '*batch target_model']:
    """Returns `outputs`, plus `inputs @ W_skip` if the SAE has a skip term."""
    if not self.skip:
      return outputs
    if inputs is None:
      raise TypeError('an SAE with a skip term needs `inputs` to decode')
    return outputs + inputs @ params['W_skip']

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
    """Returns the loss on the kept rows (those with `keep`), and its parts.

    The other rows have no effect, but must be finite. `silent` is the number of
    kept rows since each latent last fired. By default no latent counts as dead.
    """
    if silent is None:
      silent = jnp.zeros(self.width, jnp.int32)
    pre_acts = self.pre_acts(params, inputs)
    latents = self.batch_latents(params, pre_acts, inputs=inputs, keep=keep)
    errors = self.decode(params, latents, inputs) - targets
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
        rows=Rows(inputs, targets, errors, keep, silent),
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
    """Returns the SAE for raw activations, and its parameters.

    `params` were trained on inputs / `input_scale` and targets /
    `target_scale`. The folded SAE maps raw inputs to raw reconstructions (Gemma
    Scope, appendix A, where both scales are equal). Each latent is multiplied
    by `target_scale` and by the norm of its decoder row. The decoder has
    unit-norm rows, thresholds are linear, and the pre-encoder bias is part of
    `b_enc`. The folded SAE is for inference only, because bandwidths and
    sparsity coefficients are in units of the scaled activations.
    """
    W_dec = params['W_dec']
    norms = jnp.linalg.norm(W_dec, axis=-1)
    # A row of zeros has no direction to scale.
    norms = jnp.where(norms > 0, norms, 1.0)
    scale = target_scale * norms
    b_enc = params['b_enc'] - self.bias_shift(params)
    factor = (scale / input_scale)[None, :]
    folded = {
        **{name: params[name] * factor for name in self.encoders},
        'b_enc': b_enc * scale,
        'W_dec': W_dec / norms[:, None],
        'b_dec': params['b_dec'] * target_scale,
    }
    if self.skip:
      folded['W_skip'] = params['W_skip'] * (target_scale / input_scale)
    return (
        dataclasses.replace(self, config=self.folded_config()),
        folded | self.fold_own(params, scale=scale),
    )
