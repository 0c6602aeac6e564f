"""Initial parameters from other SAEs, for fine-tuning (`--init_from`).

A source is a folded SAE: it reads raw activations. Its parameters are divided
by the scales of the new run, which is the inverse of folding, so that before
the first step the member computes the same function.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.activations import scales as scales_lib
from jumprelu.saes import base
from jumprelu.training import suite

# The least threshold of a member that trains its logarithm.
_LEAST_THRESHOLD = 1e-6


class Source(NamedTuple):
  """The SAE from which a member starts.

  Attributes:
    path: Its folder, for messages and the record.
    sae: The folded SAE.
    params: Its arrays, for raw activations.
    digest: The digest of the arrays.
  """

  path: str
  sae: base.Sae
  params: Mapping[str, Any]
  digest: str


# Group -> a source for each member.
Sources = Mapping[str, Sequence[Source]]


def check(source: Source, sae: base.Sae) -> None:
  """Raises a UserError if an SAE cannot start from the source."""
  sizes = ('variant', 'd_in', 'd_out', 'width', 'transcoder', 'skip')
  for name in sizes:
    theirs, ours = getattr(source.sae, name), getattr(sae, name)
    if theirs != ours:
      raise errors.UserError(
          f'--init_from={source.path}: {name} is {theirs}, and that of the new'
          f' SAE {ours}'
      )
  if len(sae.encoders) > 1 or (
      'b_mag' in source.params and sae.subtracts_decoder_bias
  ):
    raise errors.UserError(
        f'--init_from={source.path}: a {sae.variant} SAE with these options'
        ' cannot be started from released arrays; set'
        f' --sae.{sae.variant}.pre_encoder_bias=false'
    )


def params(
    source: Source,
    sae: base.Sae,
    initial: Mapping[str, Any],
    *,
    input_scale: float,
    target_scale: float,
) -> dict[str, Any]:
  """Returns the parameters of a member that starts from a source.

  Args:
    source: The source, which fits (`check`).
    sae: The member's SAE.
    initial: Its usual initial parameters. Those without a counterpart in the
      source, such as k, are kept.
    input_scale: The number by which the run divides inputs.
    target_scale: The number by which it divides targets.
  """
  arrays = {name: jnp.asarray(x) for name, x in source.params.items()}
  _, scaled = source.sae.fold(
      arrays, input_scale=1 / input_scale, target_scale=1 / target_scale
  )
  if 'log_threshold' in initial:
    threshold = jnp.maximum(scaled['threshold'], _LEAST_THRESHOLD)
    scaled['log_threshold'] = jnp.log(threshold)
  # Folding has moved the pre-encoder bias into `b_enc`.
  scaled['b_enc'] = scaled['b_enc'] + sae.bias_shift(scaled)
  return {
      name: scaled[name] if name in scaled and name != 'k' else value
      for name, value in initial.items()
  }


def start(
    state: suite.TrainState,
    groups: Sequence[suite.Group],
    scales: scales_lib.Scales,
    sources: Sources,
) -> suite.TrainState:
  """Returns an initial state, with the parameters of the sources.

  Args:
    state: The initial state with padding.
    groups: The groups of the suite.
    scales: The scales of the taps.
    sources: The sources of the groups' members.

  Raises:
    UserError: There are no sources.
  """
  if not sources:
    raise errors.UserError(
        'init_from: pass its SAEs as sources (release.starts.find)'
    )
  started = dict(state.groups)
  for group in groups:
    old = state.groups[group.name]
    several = [*sources[group.name]]
    count = len(old.skipped)
    # Padding is a copy of the last member.
    several += several[-1:] * (count - len(several))
    initial = jax.device_get(old.params)
    made = [
        params(
            source,
            group.sae,
            {name: x[index] for name, x in initial.items()},
            input_scale=scales[group.reads.input],
            target_scale=scales[group.reads.target],
        )
        for index, source in enumerate(several)
    ]
    stacked = {
        name: jax.device_put(
            np.stack([np.asarray(m[name], np.float32) for m in made]),
            old.params[name].sharding,
        )
        for name in initial
    }
    started[group.name] = dataclasses.replace(old, params=stacked)
  return suite.TrainState(groups=started, step=state.step)


def describe(
    groups: Sequence[suite.Group], sources: Sources
) -> dict[str, dict[str, str]]:
  """Returns the path and digest of each member's source, by its name."""
  return {
      name: {'path': source.path, 'digest': source.digest}
      for group in groups
      for name, source in zip(
          suite.names(group), sources.get(group.name, ()), strict=False
      )
  }
