"""Paths that update both matrices in place, row by row.

Their encoder lies turned, a row a latent, in all the state that they are given
and give. With beta1 = 0 a latent without a gradient does not move, its second
moments only decay, and a row of unit norm stays one. So the native step and the
kernels update the rows of what fired, and remember when; at the end of a
segment the other rows catch up, and the state is what a dense path would have
left.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from jumprelu import saes
from jumprelu.array_typing import Array, Int
from jumprelu.ops import active_pairs, dense, native, pallas, sparse
from jumprelu.training import optim, suite
from jumprelu.training.backends import protocol

_MATRICES = ('W_enc', 'W_dec')


class _Own(NamedTuple):
  """A member's state."""

  matrices: active_pairs.Matrices
  # Parameters and second moments that are no matrices.
  params: optim.Params
  nu: optim.Params
  silent: Int[Array, ' latents']
  skipped: Int[Array, '']
  # Steps taken since `enter`.
  clock: Int[Array, '']


def _enter(sae: saes.base.Sae, state: suite.GroupState) -> _Own:
  params, nu = state.params, state.nu
  matrices = active_pairs.Matrices(
      encoder=params['W_enc'],
      decoder=params['W_dec'],
      nu_encoder=nu['W_enc'],
      nu_decoder=nu['W_dec'],
      touched=jnp.zeros(sae.width, jnp.int32),
  )
  return _Own(
      matrices,
      _without_matrices(params),
      _without_matrices(nu),
      state.silent,
      state.skipped,
      jnp.int32(0),
  )


def _without_matrices(tree: optim.Params) -> optim.Params:
  return {name: x for name, x in tree.items() if name not in _MATRICES}


def _leave(
    catch_up: Callable[..., active_pairs.Matrices],
    sae: saes.base.Sae,
    own: _Own,
    *,
    config: optim.Config,
) -> suite.GroupState:
  """Let untouched rows catch up."""
  del sae
  found = catch_up(own.matrices, own.clock, b2=config.b2)
  return suite.GroupState(
      params=own.params | {'W_enc': found.encoder, 'W_dec': found.decoder},
      nu=own.nu | {'W_enc': found.nu_encoder, 'W_dec': found.nu_decoder},
      silent=own.silent,
      skipped=own.skipped,
  )


def _step(
    take: Callable[..., tuple[active_pairs.Matrices, active_pairs.Found]],
    sae: saes.base.Sae,
    own: _Own,
    hyper: dict[str, Any],
    *,
    shared: protocol.Shared,
    config: optim.Config,
) -> tuple[_Own, dict[str, Array]]:
  """Step one SAE, or leave it as it is where anything is not finite."""
  rate = hyper['learning_rate'] * shared.learning_rate
  encoder = {'W_enc': own.matrices.encoder.T}
  batch = protocol.make_batch(sae, own.params | encoder, hyper, shared)
  matrices, found = take(
      own.matrices,
      batch,
      active_pairs.Rates(
          rate, optim.correction(config, shared.step), own.clock
      ),
      settings=protocol.settings_of(sae, config),
  )
  outcome = protocol.outcome_of(sae, batch, found)
  new = optim.update(
      own.params,
      own.nu,
      protocol.vectors(own.params, found, batch.threshold),
      step=shared.step,
      learning_rate=rate,
      config=config,
      unit_norm=False,
  )
  params, nu = protocol.if_ok(outcome, new, (own.params, own.nu))
  silent, skipped = protocol.count(own.silent, own.skipped, shared, outcome)
  clock = own.clock + jnp.where(outcome.ok, 1, 0)
  own = _Own(matrices, params, nu, silent, skipped, clock)
  return own, protocol.metrics(outcome, shared, silent=silent, skipped=skipped)


def make_path(
    take: Callable[..., tuple[active_pairs.Matrices, active_pairs.Found]],
    catch_up: Callable[..., active_pairs.Matrices],
) -> protocol.Path:
  """Make the path of a step like `native.step`, and its `native.catch_up`."""
  return protocol.Path(
      _enter,
      functools.partial(_leave, catch_up),
      functools.partial(_step, take),
      turned=True,
  )


def _caught_up(
    matrices: active_pairs.Matrices, clock: Int[Array, ''], *, b2: float
) -> active_pairs.Matrices:
  """Leave matrices whose every row is updated in every step."""
  del clock, b2
  return matrices


def make_sparse(cap: int) -> protocol.Path:
  """Make the sparse path, dense where a row has more than `cap` latents."""
  return make_path(functools.partial(sparse.step, cap=cap), _caught_up)


def make_pallas(cap: int, *, interpret: bool = False) -> protocol.Path:
  """Make the Pallas path with room for `cap` selected latents a row."""
  take = functools.partial(pallas.step, cap=cap, interpret=interpret)
  return make_path(take, pallas.catch_up)


NATIVE = make_path(native.step, native.catch_up)
DENSE = make_path(dense.step, _caught_up)
SPARSE = make_sparse(protocol.SPARSE_CAP)
PALLAS = make_pallas(protocol.PALLAS_CAP)
