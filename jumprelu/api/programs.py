"""Compiled passes of a language model, with or without an SAE spliced in.

The passes of an evaluation (`evals/splice.py`) differ: they run many SAEs on
one clean pass, and only the blocks above a splice. `Spliced` passes run one SAE
in a complete pass, also token by token, and may keep the error. All passes
apply edits (`evals/edits.py`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.array_typing import Array, Float, Int, Key
from jumprelu.data import packing
from jumprelu.evals import edits as edits_lib
from jumprelu.lm import cached, gemma, loss
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


# The static parts of edits, and a record of arrays for each of them.
Edited = tuple[edits_lib.Target, ...]
EditArrays = tuple[edits_lib.Arrays, ...]


class Forward(NamedTuple):
  """The results of a forward pass."""

  values: dict[lm.Tap, Float[Array, 'sequences positions d_site']]
  logits: Float[Array, 'sequences positions vocab']
  losses: Float[Array, 'sequences next_positions']


class Sampling(NamedTuple):
  """How new tokens are chosen: temperature 0 takes the likeliest."""

  temperature: Float[Array, '']
  key: Key[Array, '']


def _splices(spliced, params, tokens, *, edited, edit_arrays, start=0):
  """Returns the splice of an SAE and edits, as `gemma.run` takes it.

  None if there are no SAE and no edits. Edits read the activations before the
  SAE replaces them, and their changes are added to its output. `start` is the
  position of the first token in the text.
  """
  keep = packing.keep_mask(tokens)
  positions = start + jnp.arange(tokens.shape[1])[None]
  splice = {} if spliced is None else _sae_splice(spliced, params, keep)
  changes = edits_lib.changes(
      edited, edit_arrays, keep=keep, positions=positions
  )
  # A spliced transcoder reads its input after the edits.
  read = spliced and spliced.reads.is_transcoder and spliced.reads.input

  def both(tap):
    def replace(x):
      change = changes[tap](x)
      if tap == read:
        return splice[tap](edits_lib.add(x, change))
      value = splice[tap](x) if tap in splice else x
      return edits_lib.add(value, change)

    return replace

  return (splice | {tap: both(tap) for tap in changes}) or None


def _sae_splice(spliced, params, keep):
  """Returns the splice of an SAE, as `gemma.run` takes it."""
  sae, reads, keep_error = spliced
  keep = keep[..., None]
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
    jax.jit, static_argnums=0, static_argnames=('taps', 'spliced', 'edited')
)
def forward(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    sae_params: Any,
    *,
    taps: tuple[lm.Tap, ...],
    spliced: Spliced | None,
    edited: Edited = (),
    edit_arrays: EditArrays = (),
) -> Forward:
  """Returns the activations at `taps`, the logits and the losses.

  Activations are those before a splice or an edit at the same tap.
  """
  tokens = jnp.asarray(tokens)
  hidden, values = gemma.run(
      config,
      params,
      tokens,
      positions=jnp.asarray(packing.positions(tokens)),
      segments=jnp.asarray(packing.segments(tokens)),
      final_norm=True,
      taps=frozenset(taps),
      splice=_splices(
          spliced,
          sae_params,
          tokens,
          edited=edited,
          edit_arrays=edit_arrays,
      ),
  )
  logits = gemma.unembed(config, params, hidden)
  return Forward(values, logits, loss.of_logits(logits[:, :-1], tokens[:, 1:]))


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('spliced', 'edited')
)
def losses(
    config: lm.LmConfig,
    params: Any,
    tokens: Int[Array, 'sequences positions'],
    sae_params: Any,
    *,
    spliced: Spliced | None,
    edited: Edited = (),
    edit_arrays: EditArrays = (),
) -> Float[Array, 'sequences positions']:
  """Returns the losses of the next tokens; few logits are in memory at once."""
  tokens = jnp.asarray(tokens)
  return loss.losses(
      config,
      params,
      tokens,
      positions=jnp.asarray(packing.positions(tokens)),
      segments=jnp.asarray(packing.segments(tokens)),
      splice=_splices(
          spliced,
          sae_params,
          tokens,
          edited=edited,
          edit_arrays=edit_arrays,
      ),
  )


class Generated(NamedTuple):
  """New tokens, the logits that each was chosen from, and their number."""

  tokens: Int[Array, ' room']
  logits: Float[Array, 'room vocab']
  count: Int[Array, '']


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('room', 'spliced', 'edited')
)
def generate(
    config: lm.LmConfig,
    params: Any,
    prompt: Int[Array, ' positions'],
    length: Int[Array, ''],
    tokens: Int[Array, ''],
    sampling: Sampling,
    *,
    sae_params: Any,
    room: int,
    spliced: Spliced | None,
    edited: Edited = (),
    edit_arrays: EditArrays = (),
) -> Generated:
  """Returns a continuation, which ends after EOS.

  Args:
    config: The model's shapes.
    params: Its parameters.
    prompt: The prompt, padded.
    length: The number of its tokens.
    tokens: The largest number of new tokens.
    sampling: How tokens are chosen.
    sae_params: The parameters of the spliced SAE.
    room: The size of the result, at least `tokens`; compiled for each size.
    spliced: The spliced SAE; None for the plain model.
    edited: The static parts of edits.
    edit_arrays: The arrays of the edits.
  """
  dtype = jax.tree.leaves(params)[0].dtype
  cache = cached.make_cache(config, 1, prompt.shape[0] + room, dtype=dtype)

  splices = functools.partial(
      _splices, spliced, sae_params, edited=edited, edit_arrays=edit_arrays
  )
  run = functools.partial(_cached_pass, config, params, splices)

  def step(state):
    cache, hidden, made = state
    logits = gemma.unembed(config, params, hidden)
    key = jax.random.fold_in(sampling.key, made.count)
    token = _choose(logits, sampling.temperature, key)
    cache, after = run(cache, token[None, None])
    cache = cache._replace(length=cache.length + 1)
    made = Generated(
        made.tokens.at[made.count].set(token),
        made.logits.at[made.count].set(logits),
        made.count + 1,
    )
    return cache, after[0, 0], made

  def unfinished(state):
    made = state[-1]
    ended = made.tokens[made.count - 1] == packing.EOS
    return (made.count < tokens) & ~((made.count > 0) & ended)

  cache, hidden = run(cache, prompt[None])
  cache = cache._replace(length=jnp.int32(length))
  state = cache, hidden[0, length - 1], _nothing(room, config.vocab)
  return jax.lax.while_loop(unfinished, step, state)[-1]


def _nothing(room, vocab):
  """Returns the result of a generation before its first token."""
  return Generated(
      jnp.zeros(room, jnp.int32),
      jnp.zeros((room, vocab), jnp.float32),
      jnp.int32(0),
  )


def _cached_pass(config, params, splices, cache, ids):
  """Returns the cache with these tokens, and the final norm's output."""
  attend = cached.Attention(cache, config.attention_softcap)
  hidden, _ = gemma.run(
      config,
      params,
      ids,
      positions=cache.length + jnp.arange(ids.shape[1])[None],
      segments=jnp.ones_like(ids),
      final_norm=True,
      splice=splices(ids, start=cache.length),
      attend=attend,
  )
  return attend.cache, hidden


def _choose(
    logits: Float[Array, ' vocab'], temperature: Float[Array, ''], key: Array
) -> Int[Array, '']:
  """Returns the likeliest token at temperature 0, otherwise a sample."""
  warm = temperature > 0
  sampled = jax.random.categorical(
      key, logits / jnp.where(warm, temperature, 1)
  )
  return jnp.where(warm, sampled, logits.argmax(-1)).astype(jnp.int32)
