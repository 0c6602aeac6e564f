"""The backends that update both matrices in place, row by row.

They store the encoder transposed, [latents, model], because a latent then owns
one contiguous row of each matrix. With beta1 = 0 a latent without a gradient
does not move: only its second moments decay, and its decoder row keeps its
norm. The native step and the Pallas kernels therefore update only the rows of
latents with a gradient, and record the step of each update. At the end of a
segment the second moments of all other rows are decayed by the missing steps,
so that the state equals that of the dense backend.
"""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Float, Int
from jumprelu.ops import active_pairs, dense, native, pallas, sparse
from jumprelu.training import optim, suite, train_batch
from jumprelu.training.backends import interface, plain_jumprelu

_MATRICES = ('W_enc', 'W_dec')


class MemberState(NamedTuple):
  """The state of a member during a segment."""

  matrices: active_pairs.Matrices
  # Parameters and second moments that are vectors.
  params: optim.Params
  nu: optim.Params
  silent: Int[Array, ' latents']
  skipped: Int[Array, '']
  # Steps of this segment that were not skipped.
  clock: Int[Array, '']


class InPlace(interface.Backend):
  """A backend whose `update_matrices` is a step of `ops`."""

  @abc.abstractmethod
  def update_matrices(
      self,
      matrices: active_pairs.Matrices,
      batch: active_pairs.Batch,
      rates: active_pairs.AdamScalars,
      *,
      settings: active_pairs.Settings,
  ) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
    """Returns the updated matrices, and the other results of the step."""

  def catch_up(
      self,
      matrices: active_pairs.Matrices,
      clock: Int[Array, ''],
      *,
      b2: float,
  ) -> active_pairs.Matrices:
    """Returns the matrices with all second moments decayed up to `clock`.

    The default returns the matrices unchanged, for steps that update every row.
    """
    del clock, b2
    return matrices

  def to_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns the state with transposed encoders."""
    return _transpose_encoder(state)

  def from_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns the state with encoders in the layout of a checkpoint."""
    return _transpose_encoder(state)

  def begin_segment(self, state: suite.GroupState) -> MemberState:
    """Returns the state with the matrices in a field of their own."""
    params, nu = state.params, state.nu
    matrices = active_pairs.Matrices(
        encoder=params['W_enc'],
        decoder=params['W_dec'],
        nu_encoder=nu['W_enc'],
        nu_decoder=nu['W_dec'],
        touched=jnp.zeros(len(params['W_dec']), jnp.int32),
    )
    return MemberState(
        matrices,
        _without_matrices(params),
        _without_matrices(nu),
        state.silent,
        state.skipped,
        jnp.int32(0),
    )

  def end_segment(
      self, member_state: MemberState, *, config: optim.Config
  ) -> suite.GroupState:
    """Returns the state with the second moments of all rows up to date."""
    state = member_state
    matrices = self.catch_up(state.matrices, state.clock, b2=config.b2)
    weights = {'W_enc': matrices.encoder, 'W_dec': matrices.decoder}
    moments = {'W_enc': matrices.nu_encoder, 'W_dec': matrices.nu_decoder}
    return suite.GroupState(
        params=state.params | weights,
        nu=state.nu | moments,
        silent=state.silent,
        skipped=state.skipped,
    )

  def step(
      self,
      sae: saes.base.Sae,
      member_state: MemberState,
      hyper: dict[str, Array],
      *,
      batch: train_batch.TrainBatch,
      config: optim.Config,
  ) -> tuple[MemberState, dict[str, Array]]:
    """Returns the state after one step, and metrics (`Backend.step`)."""
    state = member_state
    learning_rate = hyper['learning_rate'] * batch.learning_rate
    encoder = {'W_enc': state.matrices.encoder.T}
    encoded = plain_jumprelu.encode(sae, state.params | encoder, hyper, batch)
    matrices, result = self.update_matrices(
        state.matrices,
        encoded,
        active_pairs.AdamScalars(
            learning_rate, optim.correction(config, batch.step), state.clock
        ),
        settings=plain_jumprelu.settings_of(sae, config),
    )
    outcome = plain_jumprelu.outcome_of(sae, encoded, result)
    new = optim.update(
        state.params,
        state.nu,
        plain_jumprelu.vector_gradients(
            state.params, result, encoded.threshold
        ),
        step=batch.step,
        learning_rate=learning_rate,
        config=config,
        unit_norm=False,
    )
    params, nu = interface.select(outcome.ok, new, (state.params, state.nu))
    silent, skipped = interface.count(state, batch, outcome)
    clock = state.clock + jnp.where(outcome.ok, 1, 0)
    state = MemberState(matrices, params, nu, silent, skipped, clock)
    return state, interface.metrics(
        outcome, batch, silent=silent, skipped=skipped
    )


class DenseInPlace(InPlace):
  """The dense step, one block of latents at a time: for one CPU."""

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns matrices and results of `ops.dense`."""
    return dense.step(matrices, batch, rates, settings=settings)


@dataclasses.dataclass(frozen=True)
class Sparse(InPlace):
  """Only pairs with a gradient, in JAX: for one device."""

  # If a row has more selected latents, the whole step is dense, which is as
  # fast at an L0 of hundreds.
  cap: int = 384

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns matrices and results of `ops.sparse`."""
    return sparse.step(matrices, batch, rates, settings=settings, cap=self.cap)


class Native(InPlace):
  """Only pairs with a gradient, in C++: for one CPU."""

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns matrices and results of `ops.native`."""
    return native.step(matrices, batch, rates, settings=settings)

  def catch_up(self, matrices, clock, *, b2):
    """Returns matrices with all second moments decayed by `ops.native`."""
    return native.catch_up(matrices, clock, b2=b2)


@dataclasses.dataclass(frozen=True)
class Pallas(InPlace):
  """Only pairs with a gradient, in Pallas: for one GPU."""

  # The number of selected latents per row for which the kernels have room.
  cap: int = 256
  # Whether the kernels are interpreted, which is slow but works on any device.
  interpret: bool = False

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns matrices and results of `ops.pallas`."""
    return pallas.step(
        matrices,
        batch,
        rates,
        settings=settings,
        cap=self.cap,
        interpret=self.interpret,
    )

  def catch_up(self, matrices, clock, *, b2):
    """Returns matrices with all second moments decayed by `ops.pallas`."""
    return pallas.catch_up(matrices, clock, b2=b2)


def _without_matrices(tree: optim.Params) -> optim.Params:
  return {name: x for name, x in tree.items() if name not in _MATRICES}


def _transpose_encoder(state: suite.GroupState) -> suite.GroupState:
  """Transposes the encoders of a group and their second moments."""

  def transpose(tree):
    return tree | {'W_enc': _transpose(tree['W_enc'])}

  return dataclasses.replace(
      state, params=transpose(state.params), nu=transpose(state.nu)
  )


@jax.jit
def _transpose(x: Float[Array, 'members a b']) -> Float[Array, 'members b a']:
  return jnp.swapaxes(x, 1, 2)
