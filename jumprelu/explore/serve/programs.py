"""Compiled passes of the live model, whose results are small.

Latents and logits of all tokens stay on the device: the host gets the largest
latents, their number and a few logits. A text is a padded batch of one
sequence.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from jumprelu import lm
from jumprelu.api import programs
from jumprelu.array_typing import Array, Float, Int
from jumprelu.data import packing
from jumprelu.evals.measures import attribution
from jumprelu.saes import base

# The number of next tokens that are returned.
NEXT = 10


class Member(NamedTuple):
  """The static part of a member."""

  sae: base.Sae
  reads: lm.Reads


class Text(NamedTuple):
  """A padded text and the number of its tokens."""

  tokens: Int[Array, '1 positions']
  length: Int[Array, '']


class Next(NamedTuple):
  """The likeliest next tokens after the last token."""

  tokens: Int[Array, ' next']
  logits: Float[Array, ' next']
  probabilities: Float[Array, ' next']


class Predicted(NamedTuple):
  """The losses of each token after the first, and the next tokens."""

  losses: Float[Array, ' positions_after_first']
  next: Next


class Clean(NamedTuple):
  """A pass without an SAE; activations and logits stay on the device."""

  text: Text
  values: dict[lm.Tap, Float[Array, 'positions d_site']]
  logits: Float[Array, ' vocab']  # After the last token.
  predicted: Predicted


class Latents(NamedTuple):
  """The latents of largest magnitude at each token; the others are 0."""

  latents: Int[Array, 'positions k']
  values: Float[Array, 'positions k']
  count: Int[Array, ' positions']  # Of all active latents.


class Summary(NamedTuple):
  """The largest latents of a member, and its relative error at each token."""

  largest: Latents
  error: Float[Array, ' positions']


class Entries(NamedTuple):
  """The largest effects of latents on the target, and the sums of the rest."""

  positions: Int[Array, ' count']
  latents: Int[Array, ' count']
  values: Float[Array, ' count']
  effects: Float[Array, ' count']
  latents_total: Float[Array, '']
  affine: Float[Array, ' positions']
  error: Float[Array, ' positions']


@functools.partial(jax.jit, static_argnums=0, static_argnames=('taps', 'vocab'))
def forward(
    config: lm.LmConfig,
    params: Any,
    text: Text,
    *,
    taps: tuple[lm.Tap, ...],
    vocab: int,
) -> Clean:
  """Returns the clean pass of a text, with the activations at `taps`."""
  passed = programs.forward(
      config, params, text.tokens, None, taps=taps, spliced=None
  )
  values = {tap: x[0].astype(jnp.float32) for tap, x in passed.values.items()}
  last = passed.logits[0, text.length - 1]
  return Clean(text, values, last, _predicted(text, passed, vocab))


@functools.partial(jax.jit, static_argnames=('members', 'k'))
def summarize(
    clean: Clean,
    params: Sequence[Any],
    *,
    members: tuple[Member, ...],
    k: int,
) -> list[Summary]:
  """Returns the `k` largest latents of each member, and its error."""
  keep = packing.keep_mask(clean.text.tokens)[0]
  summaries = []
  for member, arrays in zip(members, params, strict=True):
    inputs, targets, latents = _encode(member, clean, arrays)
    output = member.sae.decode(arrays, latents, inputs)
    error = _norm(targets - output) / _norm(targets)
    summaries.append(Summary(_largest(latents, k), jnp.where(keep, error, 0.0)))
  return summaries


@functools.partial(jax.jit, static_argnames=('member', 'bound'))
def active(clean: Clean, arrays: Any, *, member: Member, bound: int) -> Latents:
  """Returns at most `bound` active latents of each token."""
  return _largest(_encode(member, clean, arrays)[2], bound)


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('spliced', 'vocab')
)
def predict(
    config: lm.LmConfig,
    params: Any,
    text: Text,
    arrays: Any,
    *,
    spliced: programs.Spliced,
    vocab: int,
) -> Predicted:
  """Returns losses and next tokens with an SAE spliced in."""
  passed = programs.forward(
      config, params, text.tokens, arrays, taps=(), spliced=spliced
  )
  return _predicted(text, passed, vocab)


@functools.partial(jax.jit, static_argnames=('member', 'count'))
def attribute(
    clean: Clean,
    gradient: Float[Array, 'positions d_out'],
    arrays: Any,
    *,
    member: Member,
    count: int,
) -> Entries:
  """Returns the largest effects of latents along a gradient at their target."""
  sae = member.sae
  inputs, targets, latents = _encode(member, clean, arrays)
  terms = attribution.terms(
      sae, arrays, inputs, targets, latents=latents, gradient=gradient
  )
  flat = terms.latents.reshape(-1)
  _, at = lax.top_k(jnp.abs(flat), min(count, flat.size))
  return Entries(
      positions=at // sae.width,
      latents=at % sae.width,
      values=latents.reshape(-1)[at],
      effects=flat[at],
      latents_total=flat.sum(),
      affine=terms.affine,
      error=terms.error,
  )


def _encode(member, clean, arrays):
  """Returns kept inputs, targets and latents; inputs are 0 elsewhere."""
  keep = packing.keep_mask(clean.text.tokens)[0][:, None]
  inputs, targets = (
      jnp.concatenate([clean.values[tap] for tap in taps], -1)
      for taps in (member.reads.inputs, member.reads.targets)
  )
  inputs = jnp.where(keep, inputs, 0)
  latents = member.sae.encode(arrays, inputs)
  return inputs, targets, jnp.where(keep, latents, 0)


def _largest(latents: Float[Array, 'positions latents'], k: int) -> Latents:
  k = min(k, latents.shape[-1])
  _, ids = lax.top_k(jnp.abs(latents), k)
  values = jnp.take_along_axis(latents, ids, axis=-1)
  return Latents(ids, values, (latents != 0).sum(-1, dtype=jnp.int32))


def _norm(x):
  return jnp.linalg.norm(x, axis=-1)


def _predicted(text: Text, passed: programs.Forward, vocab: int) -> Predicted:
  """Returns losses and next tokens; rows beyond `vocab` are no tokens."""
  last = passed.logits[0, text.length - 1]
  top, tokens = lax.top_k(last[:vocab], min(NEXT, vocab))
  shares = jnp.exp(top - jax.nn.logsumexp(last))
  return Predicted(passed.losses[0], Next(tokens, top, shares))
