"""The dense backend, which computes full gradients before it updates."""

from jumprelu import saes
from jumprelu.array_typing import Array
from jumprelu.ops import dense
from jumprelu.training import optim, suite, train_batch
from jumprelu.training.backends import interface, plain


class Dense(interface.Backend):
  """Hand-written dense gradients and `optim.update`, on any device or mesh."""

  def step(
      self,
      sae: saes.base.Sae,
      member_state: suite.GroupState,
      hyper: dict[str, Array],
      *,
      batch: train_batch.TrainBatch,
      config: optim.Config,
  ) -> tuple[suite.GroupState, dict[str, Array]]:
    """Returns the state of a member after one step, and its metrics."""
    state, params = member_state, member_state.params
    pre_acts = sae.pre_acts(params, batch.inputs)
    encoded = plain.batch_of(sae, params, pre_acts, hyper, batch)
    W_enc, W_dec, result = dense.gradients(
        encoded,
        params['W_enc'],
        params['W_dec'],
        settings=plain.settings_of(sae, config),
    )
    grads = plain.vector_gradients(sae, params, result, encoded.threshold)
    grads |= {'W_enc': W_enc, 'W_dec': W_dec}
    outcome = plain.outcome_of(sae, encoded, result)
    new = optim.update(
        params,
        state.nu,
        grads,
        step=batch.step,
        learning_rate=hyper['learning_rate'] * batch.learning_rate,
        config=config,
        unit_norm=sae.unit_norm_decoder,
    )
    params, nu = interface.select(outcome.ok, new, (params, state.nu))
    silent, skipped, failing = interface.count(state, batch, outcome)
    state = suite.GroupState(params, nu, silent, skipped, failing)
    return state, interface.metrics(
        outcome, batch, silent=silent, skipped=skipped, failing=failing
    )
