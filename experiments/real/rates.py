"""Rates of training steps and forward passes, measured in seconds.

A rate is in FLOP per second, where FLOP are those of dense products
(`jumprelu/planning/costs.py`). A step that skips inactive latents therefore has
a higher rate than the machine's products.
"""

from collections.abc import Iterable
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.activations import blocks
from jumprelu.planning import costs
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, suite
from jumprelu.training import step as step_lib

# The rate of the language model has this name.
LM = 'lm'
# Active latents per row of the measured SAEs with thresholds.
_L0 = 64
_STEPS = 8


def measure(configs: Iterable[config_lib.TrainConfig]) -> dict[str, float]:
  """Returns the rate of each variant at the largest width that has it.

  Args:
    configs: The configs of the parts.
  """
  largest: dict[str, tuple[suite.Group, config_lib.TrainConfig]] = {}
  for config in configs:
    for group in load_run.make_suite(config):
      variant = group.sae.variant
      if variant not in largest or (
          group.sae.width > largest[variant][0].sae.width
      ):
        largest[variant] = group, config
  return {
      variant: step_rate(group, config)
      for variant, (group, config) in largest.items()
  }


def step_rate(group: suite.Group, config: config_lib.TrainConfig) -> float:
  """Returns the rate of a step of a group's first member.

  The rows are random, and thresholds are chosen so that `_L0` latents are
  active on a row.
  """
  # Rows have norm 1 and encoders about unit norm, so that pre-activations are
  # about normal with a standard deviation of d_in ** -0.5.
  share = min(0.5, _L0 / group.sae.width)
  quantile = statistics.NormalDist().inv_cdf(1 - share)
  member = dataclasses.replace(
      group.members[0],
      initial_threshold=max(quantile, 0.1) * group.sae.d_in**-0.5,
  )
  group = dataclasses.replace(group, members=(member,))
  batch = config.stream.batch
  segments = step_lib.make_segments(
      [group],
      config.optim,
      total_steps=10**6,
      batch=batch,
      max_steps=_STEPS,
      backend=config.backend,
  )
  rows = _STEPS * batch
  taps = suite.taps([group])
  keys = jax.random.split(jax.random.key(0), len(taps))
  activations = {
      tap: jax.random.normal(key, (1, rows, group.widths[tap]))
      for tap, key in zip(taps, keys, strict=True)
  }
  block = blocks.Block(
      activations=activations,
      inverse_scale={
          tap: jnp.float32(x.shape[-1] ** -0.5)
          for tap, x in activations.items()
      },
      keep=jnp.ones((1, rows), bool),
      order=jnp.arange(rows, dtype=jnp.int32)[None],
      dropped=jnp.int32(0),
  )
  state = segments.prepare(suite.init_state([group]))
  seconds = []
  for _ in range(3):
    start = time.monotonic()
    state, log = segments.run(state, block, jnp.int32(0), jnp.int32(_STEPS))
    jax.block_until_ready((state, log))
    seconds.append(time.monotonic() - start)
  # The first run includes the compilation.
  return rows * costs.member_flops(group) / min(seconds[1:])


def lm_rate(config: config_lib.TrainConfig) -> float:
  """Returns the rate of the language model up to the layer of the config.

  Raises:
    MissingInputError: the model's weights are missing.
  """
  layer = config.layer
  model = lm.load(config.model, num_layers=layer + 1, dtype='float32')
  length = config.corpus.sequence_length
  tap = lm.Tap(layer, lm.Site.RESID_POST)
  tokens = jax.random.randint(
      jax.random.key(0), (8, length), 10, model.config.vocab
  )
  positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)

  @jax.jit
  def forward(params):
    return lm.activations(
        model,
        params,
        tokens,
        taps=(tap,),
        positions=positions,
        segments=jnp.ones_like(tokens),
    )[tap]

  seconds = []
  for _ in range(3):
    start = time.monotonic()
    jax.block_until_ready(forward(model.params))
    seconds.append(time.monotonic() - start)
  flops = costs.lm_flops(model.config, layer=layer, positions=length)
  return tokens.size * flops / min(seconds[1:])
