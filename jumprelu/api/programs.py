"""Compiled passes of a language model, with or without an SAE spliced in."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Float, Int, Key
from jumprelu.data import packing
from jumprelu.lm import cached, gemma
from jumprelu.saes import base


class Spliced(NamedTuple):
  """The static part of a splice.

  Attributes:
    sae: The SAE whose output replaces its target.
    reads: Its taps.
    keep_error: Whether the reconstruction error is added again.
  """

  sae: base.Sae
  reads: lm.Reads
  keep_error: bool


class Sampling(NamedTuple):
  """How new tokens are chosen: temperature 0 takes the likeliest."""

  temperature: Float[Array, '']
  key: Key[Array, '']


def _splices(spliced, params, tokens):
  """Returns the splice of an SAE, as `gemma.run` takes it; None if no SAE."""
  if spliced is None:
    return None
  sae, reads, keep_error = spliced
  keep = packing.keep_mask(tokens)[..., None]
  seen: dict[lm.Tap, jax.Array] = {}

  def record(x):
    seen[reads.input] = x
    return x

  def replace(x):
    if not reads.is_transcoder:
      record(x)
    inputs = seen[reads.input].astype(jnp.float32)
    inputs = jnp.where(keep, inputs, 0)
    value = sae.decode(params, sae.encode(params, inputs), inputs)
    if keep_error:
      value += x - jax.lax.stop_gradient(value)
    return jnp.where(keep, value.astype(x.dtype), x)

  splice = {reads.target: replace}
  return {reads.input: record} | splice if reads.is_transcoder else splice


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('taps', 'spliced')
)
def forward(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    sae_params: Any,
    *,
    taps: tuple[lm.Tap, ...],
    spliced: Spliced | None,
) -> tuple[dict[lm.Tap, Array], Float[Array, 'sequences positions vocab']]:
  """Returns the activations at `taps` and the logits."""
  tokens = jnp.asarray(tokens)
  hidden, values = gemma.run(
      config,
      params,
      tokens,
      positions=jnp.asarray(packing.positions(tokens)),
      segments=jnp.asarray(packing.segments(tokens)),
      final_norm=True,
      taps=frozenset(taps),
      splice=_splices(spliced, sae_params, tokens),
  )
  return values, gemma.unembed(config, params, hidden)


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('tokens', 'spliced')
)
def generate(
    config: lm.LmConfig,
    params: Any,
    prompt: Int[Array, ' positions'],
    length: Int[Array, ''],
    sampling: Sampling,
    *,
    sae_params: Any,
    tokens: int,
    spliced: Spliced | None,
    count: Int[Array, ''] | None = None,
) -> tuple[Int[Array, ' tokens'], Float[Array, 'tokens vocab']]:
  """Returns new ids, and the logits that each was chosen from.

  Args:
    config: The model's shapes.
    params: Its parameters.
    prompt: The prompt, padded.
    length: The number of its tokens.
    sampling: How tokens are chosen.
    sae_params: The parameters of the spliced SAE.
    tokens: The number of new tokens.
    spliced: The spliced SAE; None for the plain model.
    count: The number of tokens after which generation ends early, so that a
      program serves several numbers; later ids and logits are 0.
  """
  dtype = jax.tree.leaves(params)[0].dtype
  room = prompt.shape[0] + tokens
  cache = cached.make_cache(config, 1, room, dtype=dtype)

  def run(cache, ids):
    attend = cached.Attention(cache, config.attention_softcap)
    positions = cache.length + jnp.arange(ids.shape[1])[None]
    hidden, _ = gemma.run(
        config,
        params,
        ids,
        positions=positions,
        segments=jnp.ones_like(ids),
        final_norm=True,
        splice=_splices(spliced, sae_params, ids),
        attend=attend,
    )
    return attend.cache, hidden

  def step(i, carry):
    cache, hidden, ids, every = carry
    logits = gemma.unembed(config, params, hidden)
    token = _choose(logits, sampling.temperature, keys[i])
    cache, after = run(cache, token[None, None])
    cache = cache._replace(length=cache.length + 1)
    return cache, after[0, 0], ids.at[i].set(token), every.at[i].set(logits)

  keys = jax.random.split(sampling.key, tokens)
  cache, hidden = run(cache, prompt[None])
  cache = cache._replace(length=jnp.int32(length))
  ids = jnp.zeros(tokens, jnp.int32)
  logits = jnp.zeros((tokens, config.vocab), jnp.float32)
  carry = cache, hidden[0, length - 1], ids, logits
  end = tokens if count is None else count
  _, _, ids, logits = jax.lax.fori_loop(0, end, step, carry)
  return ids, logits


def _choose(
    logits: Float[Array, ' vocab'], temperature: Float[Array, ''], key: Array
) -> Int[Array, '']:
  """Returns the likeliest token at temperature 0, otherwise a sample."""
  warm = temperature > 0
  sampled = jax.random.categorical(
      key, logits / jnp.where(warm, temperature, 1)
  )
  return jnp.where(warm, sampled, logits.argmax(-1)).astype(jnp.int32)
