"""An evaluation with every measure, and an independent forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu.data import packing
from jumprelu.evals import evaluate, measures
from jumprelu.lm import gemma
from tests import small_evaluation as small
from tests.lm import tiny

TOKENS = small.HELD_OUT.tokens
KEEP = packing.keep_mask(TOKENS)
# Near the end of the model, because the layers above are compiled for each
# measure.
_LAYER = 2
# Two members that differ only in their seed, a narrower one, and another site.
_MEMBERS = {
    'random': {'site': 'resid_post', 'seed': 0},
    'second': {'site': 'resid_post', 'seed': 1},
    'narrow': {'site': 'resid_post', 'seed': 7, 'width': 8},
    'transcoder': {'site': 'transcoder', 'seed': 3},
}
NAMES = tuple(_MEMBERS)
# Left out, because these measures need a tokenizer and this model has none.
_WITH_TOKENIZER = ('absorption', 'probing')
_MEASURES = tuple(m for m in measures.MEASURES if m not in _WITH_TOKENIZER)


def members():
  return [small.make_member(layer=_LAYER, **m) for m in _MEMBERS.values()]


@functools.cache
def evaluation(names=_MEASURES, sequences=4, mesh=None):
  return evaluate.evaluate_members(
      tiny.model(),
      members(),
      held_out=small.HELD_OUT,
      config=small.dataclasses.replace(small.CONFIG, lm_sequences=sequences),
      measures=names,
      mesh=mesh,
  )


def row(name):
  return evaluation().rows[NAMES.index(name)]


def taps(name):
  member = members()[NAMES.index(name)]
  return member.reads.input, member.reads.target


@functools.cache
def clean():
  """Returns clean logits in float64, and the values at the members' taps."""
  wanted = frozenset(tap for name in NAMES for tap in taps(name))
  hidden, values = jax.jit(
      lambda params: gemma.run(
          tiny.CONFIG,
          params,
          jnp.asarray(TOKENS),
          positions=packing.positions(jnp.asarray(TOKENS)),
          segments=packing.segments(jnp.asarray(TOKENS)),
          taps=wanted,
          final_norm=True,
      )
  )(tiny.model().params)
  return unembed(hidden), {k: np.asarray(v) for k, v in values.items()}


@functools.cache
def _spliced(target):
  @jax.jit
  def run(params, value):
    hidden, _ = gemma.run(
        tiny.CONFIG,
        params,
        jnp.asarray(TOKENS),
        positions=packing.positions(jnp.asarray(TOKENS)),
        segments=packing.segments(jnp.asarray(TOKENS)),
        splice={target: lambda x: value},
        final_norm=True,
    )
    return hidden

  return run


def spliced(name, value, where=KEEP):
  """Returns float64 logits of a full pass, with `value` where `where`."""
  _, target = taps(name)
  mixed = np.where(where[..., None], value, clean()[1][target])
  hidden = _spliced(target)(tiny.model().params, mixed.astype(np.float32))
  return unembed(hidden)


def unembed(hidden):
  embedding = np.asarray(
      tiny.model().params['embedder']['input_embedding'], np.float64
  )
  logits = np.asarray(hidden, np.float64) @ embedding.T
  return 30 * np.tanh(logits / 30)


def log_softmax(logits):
  top = logits.max(-1, keepdims=True)
  return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def losses(logits):
  """Returns losses of all sources but the last, even across documents."""
  targets = TOKENS[:, 1:, None]
  return -np.take_along_axis(log_softmax(logits[:, :-1]), targets, -1)[..., 0]


def scored():
  """Returns the mask of kept sources with a target in the same document."""
  after = TOKENS[:, 1:]
  return KEEP[:, :-1] & (after != packing.BOS) & (after != packing.PAD)


def sae(name):
  """Returns float64 latents, reconstruction and targets at all positions."""
  source, target = taps(name)
  member, values = members()[NAMES.index(name)], clean()[1]
  p = {k: np.asarray(v, np.float64) for k, v in member.params.items()}
  pre_acts = values[source] @ p['W_enc'] + p['b_enc']
  latents = np.where(pre_acts > p['threshold'], pre_acts, 0)
  return latents, latents @ p['W_dec'] + p['b_dec'], values[target]
