"""The backends that update the encoder and decoder matrices in place.

These backends store the encoder transposed, as [latents, model], so that each
latent has one contiguous row in both matrices.

With beta1 = 0 the parameters of a latent without a gradient do not change. Only
its second moments decay. The native step and the Pallas kernels therefore
update only the rows of latents with a gradient, and record the last update of
each row. At the end of a segment they decay the second moments of each row by
the steps since its last update, so that the state equals that of the dense
backend up to rounding.
"""

import abc
from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.ops import (
    active_pairs,
    auxiliary,
    dense,
    largest_k,
    native,
    pallas,
    sparse,
)
from jumprelu.training import optim, suite, train_batch
from jumprelu.training.backends import interface, plain

_MATRICES = ('W_enc', 'W_dec')
# If a row has more selected latents than this number, a step in JAX is computed
# by dense products, which are as fast at an L0 of hundreds.
_CAP = 384


# A step in place: (the matrices before it, its inputs) -> (the matrices after
# it, its other results).
Update = Callable[
    [active_pairs.Matrices, Any],
    tuple[active_pairs.Matrices, active_pairs.StepResult],
]


class MemberState(NamedTuple):
  """The state of a member during a segment."""

  matrices: active_pairs.Matrices
  # The parameters that are vectors, and their second moments.
  params: optim.Params
  nu: optim.Params
  silent: Int[Array, ' latents']
  skipped: Int[Array, '']
  failing: Int[Array, '']
  # The number of steps of this segment that were not skipped.
  clock: Int[Array, '']


class InPlace(interface.Backend):
  """A backend that updates both matrices with a step function of `ops`."""

  @abc.abstractmethod
  def update_matrices(
      self,
      matrices: active_pairs.Matrices,
      batch: active_pairs.Batch,
      rates: active_pairs.AdamScalars,
      *,
      settings: active_pairs.Settings,
  ) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
    """Returns the updated matrices, and the other results of the step.

    Args:
      matrices: The matrices and their second moments.
      batch: The batch with its pre-activations.
      rates: The scalars of Adam's update.
      settings: The constants of the run.
    """

  def catch_up(
      self,
      matrices: active_pairs.Matrices,
      clock: Int[Array, ''],
      *,
      b2: float,
  ) -> active_pairs.Matrices:
    """Returns the matrices with all second moments decayed up to `clock`.

    The default is for steps that update every row: the matrices are returned
    unchanged.
    """
    del clock, b2
    return matrices

  def to_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns the state with encoders as [members, latents, model]."""
    return _transpose_encoder(state)

  def from_layout(self, state: suite.GroupState) -> suite.GroupState:
    """Returns the state with encoders as [members, model, latents]."""
    return _transpose_encoder(state)

  def begin_segment(self, state: suite.GroupState) -> MemberState:
    """Returns the state with matrices and vectors in separate fields."""
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
        state.failing,
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
        failing=state.failing,
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
    """Returns the state of a member after one step, and its metrics."""
    state = member_state
    learning_rate = hyper['learning_rate'] * batch.learning_rate
    params = state.params | {'W_enc': state.matrices.encoder.T}
    pre_acts = sae.pre_acts(params, batch.inputs)
    encoded = plain.batch_of(
        sae, params, pre_acts, hyper, batch, search=largest_k.narrowed
    )
    rates = active_pairs.AdamScalars(
        learning_rate, optim.correction(config, batch.step), state.clock
    )
    matrices, result = self._update(
        sae, state, encoded, rates, pre_acts=pre_acts, config=config
    )
    outcome = plain.outcome_of(sae, encoded, result)
    new, nu = optim.update(
        state.params,
        state.nu,
        plain.vector_gradients(sae, state.params, result, encoded.threshold),
        step=batch.step,
        learning_rate=learning_rate,
        config=config,
        unit_norm=False,
    )
    new |= sae.carry(state.params, encoded.pre_acts)
    params, nu = interface.select(
        outcome.ok, (new, nu), (state.params, state.nu)
    )
    counters = interface.count(state, batch, outcome)
    clock = state.clock + jnp.where(outcome.ok, 1, 0)
    state = MemberState(matrices, params, nu, *counters, clock)
    return state, interface.metrics(
        outcome,
        batch,
        silent=state.silent,
        skipped=state.skipped,
        failing=state.failing,
    )

  def _update(
      self,
      sae: saes.base.Sae,
      state: MemberState,
      encoded: active_pairs.Batch,
      rates: active_pairs.AdamScalars,
      *,
      pre_acts: Float[Array, 'batch latents'],
      config: optim.Config,
  ) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
    """Returns the matrices after a step, and the step's result.

    `encoded.pre_acts` are those of the active pairs, and `pre_acts` those of
    all pairs.
    """
    settings = plain.settings_of(sae, config)

    def update(matrices, inputs):
      encoded, _ = inputs
      return self.update_matrices(matrices, encoded, rates, settings=settings)

    dead = plain.dead_latents(sae, state.silent)
    if dead is None:
      return update(state.matrices, (encoded, pre_acts))

    def update_with_dead(matrices, inputs):
      encoded, pre_acts = inputs
      # More candidates than by default, because `aux_k` is hundreds.
      search = functools.partial(
          largest_k.narrowed, group=8, limit=2 * sae.config.aux_k
      )
      chosen = sae.chosen_dead(pre_acts, dead, search=search)
      return auxiliary.step(
          matrices,
          encoded,
          plain.only(chosen, pre_acts),
          rates,
          coefficient=sae.config.aux_coefficient,
          settings=settings,
          cap=_CAP,
      )

    return _either(
        dead.any(),
        update_with_dead,
        update,
        state.matrices,
        (encoded, pre_acts),
    )


class DenseInPlace(InPlace):
  """The dense step in blocks of latents, for one CPU."""

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns the results of `ops.dense`."""
    return dense.step(matrices, batch, rates, settings=settings)


@dataclasses.dataclass(frozen=True)
class Sparse(InPlace):
  """The step over pairs of row and latent with a gradient, on one device."""

  # If a row has more selected latents than this number, the whole step is
  # computed by dense products.
  cap: int = _CAP

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns the results of `ops.sparse`."""
    return sparse.step(matrices, batch, rates, settings=settings, cap=self.cap)


class Native(InPlace):
  """The step over pairs with a gradient in C++, on one CPU."""

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns the results of `ops.native`."""
    return native.step(matrices, batch, rates, settings=settings)

  def catch_up(self, matrices, clock, *, b2):
    """Returns the matrices with all second moments decayed up to `clock`."""
    return native.catch_up(matrices, clock, b2=b2)


@dataclasses.dataclass(frozen=True)
class Pallas(InPlace):
  """The step over pairs with a gradient in Pallas kernels, on one GPU."""

  # If a row has more selected latents than this number, the whole step is
  # computed by dense products.
  cap: int = 256
  # Whether the kernels are interpreted, which is slow but works on any device.
  interpret: bool = False

  def update_matrices(self, matrices, batch, rates, *, settings):
    """Returns the results of `ops.pallas`."""
    return pallas.step(
        matrices,
        batch,
        rates,
        settings=settings,
        cap=self.cap,
        interpret=self.interpret,
    )

  def catch_up(self, matrices, clock, *, b2):
    """Returns the matrices with all second moments decayed up to `clock`."""
    return pallas.catch_up(matrices, clock, b2=b2)


def _either(
    condition: Bool[Array, ''],
    update: Update,
    other: Update,
    matrices: active_pairs.Matrices,
    inputs: Any,
) -> tuple[active_pairs.Matrices, active_pairs.StepResult]:
  """Returns the results of `update` if the condition holds, else of `other`.

  Each is a loop of one or no iteration, because XLA would copy the matrices
  into and out of the branches of a `lax.cond`. The barrier makes the inputs
  depend on the iteration. Otherwise XLA would compute everything that depends
  on them alone before the loop, even if it has no iteration.
  """

  def loop(update, carry, iterations):
    def body(number, carry):
      _, tied = jax.lax.optimization_barrier((number, inputs))
      return jax.tree.map(jnp.asarray, update(carry[0], tied))

    return jax.lax.fori_loop(0, iterations, body, carry)

  _, shapes = jax.eval_shape(other, matrices, inputs)
  result = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  iterations = jnp.where(condition, 1, 0)
  carry = loop(update, (matrices, result), iterations)
  return loop(other, carry, 1 - iterations)


def _without_matrices(tree: optim.Params) -> optim.Params:
  return {name: x for name, x in tree.items() if name not in _MATRICES}


def _transpose_encoder(state: suite.GroupState) -> suite.GroupState:
  """Transposes the encoders of a group, and the encoders' second moments."""

  def transpose(tree):
    return tree | {'W_enc': _transpose(tree['W_enc'])}

  return dataclasses.replace(
      state, params=transpose(state.params), nu=transpose(state.nu)
  )


@jax.jit
def _transpose(x: Float[Array, 'members a b']) -> Float[Array, 'members b a']:
  return jnp.swapaxes(x, 1, 2)
