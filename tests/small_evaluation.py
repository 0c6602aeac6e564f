"""A small evaluation that tests share, with some exactly known results."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import evals, lm, saes
from jumprelu.data import packing
from jumprelu.evals import evaluate
from tests.lm import tiny

LAYER = 1
CONFIG = evals.Config(tokens=10_000, delta_loss_tokens=10_000, lm_sequences=4)


class Cache:
  """Rows in memory, with several documents per row and a padded last row."""

  sequence_length = 12
  user_prefix = ()

  def __init__(self, seed, rows=10):
    rng = np.random.default_rng(seed)
    documents = [
        rng.integers(4, tiny.CONFIG.vocab, rng.integers(1, 20)).tolist()
        for _ in range(40)
    ]
    packed = list(packing.pack(documents, self.sequence_length))
    self.tokens = np.stack([*packed[: rows - 1], packed[-1]])
    assert (self.tokens[-1] == packing.PAD).any()

  def __len__(self):
    return len(self.tokens)

  def tokens_at(self, indices):
    return self.tokens[indices]


HELD_OUT, TRAIN = Cache(0), Cache(1, 20)
# Fewer tokens than the default window of dead latents.
KEPT = int(packing.keep_mask(HELD_OUT.tokens).sum())


def make_member(site, *, width=24, seed=0, layer=LAYER, **changes):
  """Returns a member with random parameters, except for `changes`."""
  sizes = {'attn_heads': (32, 32)}.get(site, (16, 16))
  sae = saes.make_sae(
      'jumprelu',
      saes.jumprelu.Config(
          pre_encoder_bias=False, threshold_parameter='linear'
      ),
      d_in=sizes[0],
      d_out=sizes[1],
      width=width,
      transcoder=site == 'transcoder',
  )
  params = sae.init_params(jax.random.key(seed), initial_threshold=0.3)
  params['b_dec'] = jax.random.normal(jax.random.key(seed + 9), sizes[1:]) * 0.1
  return evaluate.EvalMember(
      sae,
      params | changes,
      lm.make_reads(site, layer),
      {'seed': seed, 'path': f'{site}/{seed}'},
  )


def make_exact(site):
  """Returns a member whose reconstruction equals its input, bit for bit."""
  eye = np.eye(32 if site == 'attn_heads' else 16, dtype=np.float32)
  both = np.concatenate([eye, -eye])
  return make_member(
      site,
      width=len(both),
      W_enc=both.T,
      W_dec=both,
      b_enc=np.zeros(len(both), np.float32),
      b_dec=np.zeros(len(eye), np.float32),
      threshold=np.zeros(len(both), np.float32),
  )


def make_constant(site, value):
  """Returns a member with dead latents and the reconstruction `value`."""
  return make_member(site, b_dec=value, threshold=np.full(24, 1e9, np.float32))


def activations(site):
  """Returns the activations at kept positions of the held-out rows."""
  tokens = jnp.asarray(HELD_OUT.tokens)
  tap = lm.Tap(LAYER, site)
  values = jax.jit(
      lambda params: lm.activations(
          tiny.model(),
          params,
          tokens,
          positions=packing.positions(tokens),
          segments=packing.segments(tokens),
          taps=(tap,),
      )[tap]
  )(tiny.model().params)
  return np.asarray(values)[packing.keep_mask(HELD_OUT.tokens)]


MEMBERS = {
    'random': lambda: make_member('resid_post'),
    'second': lambda: make_member('resid_post', seed=1),
    'heads': lambda: make_member('attn_heads', seed=2),
    'transcoder': lambda: make_member('transcoder', seed=3),
    'exact resid_post': lambda: make_exact('resid_post'),
    'exact mlp_out': lambda: make_exact('mlp_out'),
    'exact attn_heads': lambda: make_exact('attn_heads'),
    'zero': lambda: make_constant('mlp_out', np.zeros(16, np.float32)),
    'mean': lambda: make_constant(
        'resid_post', activations(lm.Site.RESID_POST).mean(0)
    ),
    'first layer': lambda: make_member('mlp_out', layer=0),
    'last layer': lambda: make_member('resid_post', layer=3),
}


def run(names=tuple(MEMBERS), mesh=None, **changes):
  config = dataclasses.replace(CONFIG)
  for field, value in changes.items():
    # Config refuses windows this short.
    object.__setattr__(config, field, value)
  return evaluate.evaluate_members(
      tiny.model(),
      [MEMBERS[name]() for name in names],
      held_out=HELD_OUT,
      train=TRAIN,
      config=config,
      mesh=mesh,
  )


@functools.cache
def traced_evaluation():
  """Returns the evaluation of all members, and the encoders that it traced."""
  # Programs that an earlier test compiled would not be traced.
  jax.clear_caches()
  traced = []
  encode = saes.jumprelu.JumpRelu.encode

  def counted(self, params, inputs):
    traced.append(self)
    return encode(self, params, inputs)

  with mock.patch.object(saes.jumprelu.JumpRelu, 'encode', counted):
    return run(dead_window_tokens=KEPT), traced


def evaluation():
  return traced_evaluation()[0]


@functools.cache
def other_evaluation():
  """Returns another evaluation of three members, with a short window."""
  return run(OTHERS, lm_sequences=3, dead_window_tokens=5)


OTHERS = ('second', 'transcoder', 'heads')


def row(name):
  return evaluation().rows[list(MEMBERS).index(name)]
