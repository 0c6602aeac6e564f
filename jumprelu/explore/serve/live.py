"""A release and its language model: texts in, plain values out.

Texts are padded to few lengths, and `warm_up` runs every program of every
length, so that no request compiles. Results hold numbers, texts, lists and
dicts only.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.api import attributions, dictionary, language_model, programs
from jumprelu.data import packing
from jumprelu.explore.serve import fields, plain, steering
from jumprelu.explore.serve import programs as passes

# Texts are padded to the first of these lengths that fits; longer texts are
# refused.
LENGTHS = (64, 256)
# The largest number of tokens that are generated.
NEW_TOKENS = 64
# The largest number of latents per token in the summary of all members.
MAX_K = 32
# The number of effects in an attribution.
_ENTRIES = 50
# A member with more latents than this returns at most `_BOUND` active ones of
# each token; the bound is doubled for a text with more.
_NARROW = 4096
_BOUND = 256


class Live:
  """The live model of a page.

  Methods are not safe to call from several threads at once. They raise
  `fields.Refused` for a text that is too long and for unknown members.
  """

  def __init__(
      self,
      saes: Mapping[str, dictionary.Dictionary],
      model: language_model.LanguageModel,
  ):
    self._lm = model
    self._config, self._params = model.config, model.params
    self._vocab = min(model.config.vocab, model.tokenizer.vocab_size)
    self._lengths = lengths(model.config)
    self._static: dict[str, passes.Member] = {}
    self._arrays: dict[str, Any] = {}
    for path, member in saes.items():
      dictionary.check_fit(member, model.config)
      self._static[path] = passes.Member(member.sae, member.reads)
      self._arrays[path] = jax.device_put(member.to_raw(model.model))
    self._taps = lm.all_taps(static.reads for static in self._static.values())

  @property
  def max_tokens(self) -> int:
    """The largest number of tokens of a text, BOS included."""
    return self._lengths[-1]

  def warm_up(self, report: Callable[[str], None]) -> None:
    """Runs all programs once; `report` gets a line for each phase."""
    # Members of one shape share a program.
    paths = {static: path for path, static in self._static.items()}.values()
    phases: dict[str, Callable[[list[int]], Any]] = {
        'latents of all members': lambda text: [
            self.run(text, members=None, k=1),
            *(self.activations(text, member=path) for path in paths),
        ],
        'logits': lambda text: [
            self.logits(text, member=path, keep_error=False) for path in paths
        ],
        'attribution': lambda text: [
            self.attribution(text, member=path, target=None) for path in paths
        ],
    }
    for name, phase in phases.items():
      for length in self._lengths:
        report(f'compiling: {name}, {length} tokens')
        phase([packing.UNK] * (length - 1))
    report('compiling: generation')
    for path in (None, *paths):
      self._generate('', 1, path)
    report('compiling: steering')
    for path in paths:
      self._generate('', 1, edited=self._edited(path, []))

  def run(
      self, text: str | list[int], *, members: list[str] | None, k: int
  ) -> dict[str, Any]:
    """Returns the largest latents of members at each token, and next tokens."""
    chosen = list(self._static) if members is None else members
    for path in chosen:
      self._check(path)
    ids, clean = self._clean(text)
    summaries = passes.summarize(
        clean,
        tuple(self._arrays.values()),
        members=tuple(self._static.values()),
        k=MAX_K,
    )
    predicted = jax.device_get(clean.predicted)
    by_path = dict(zip(self._static, jax.device_get(summaries), strict=True))
    return {
        'tokens': self._named(ids),
        'members': [
            plain.summary(path, by_path[path], len(ids), k) for path in chosen
        ],
        'loss': [None, *plain.numbers(predicted.losses[: len(ids) - 1])],
        'next': self._next(predicted.next),
    }

  def rank(
      self, text: str | list[int], *, member: str, k: int, by: str
  ) -> dict[str, Any]:
    """Returns the latents that are largest, or most often active, on a text."""
    ids, at, latents, values = self._active(text, member)
    distinct, inverse, count = np.unique(
        latents, return_inverse=True, return_counts=True
    )
    # Firings are in order of position, so a tie has the first position.
    order = np.lexsort((at, -values, inverse))
    first = order[np.searchsorted(inverse[order], np.arange(len(distinct)))]
    columns = {
        'largest': values[first],
        'mean': np.bincount(inverse, values, len(distinct)) / count,
        'count': count,
    }
    order = np.lexsort((distinct, -columns['largest'], -columns[by]))[:k]
    return {
        'tokens': self._named(ids),
        'latents': [
            {
                'latent': int(distinct[i]),
                'largest': plain.number(columns['largest'][i]),
                'mean': plain.number(columns['mean'][i]),
                'count': int(count[i]),
                'at': int(at[first[i]]),
            }
            for i in order
        ],
    }

  def activations(
      self, text: str | list[int], *, member: str
  ) -> dict[str, Any]:
    """Returns all active latents of a member at each token."""
    ids, at, latents, values = self._active(text, member)
    return {
        'tokens': self._named(ids),
        'start': np.searchsorted(at, np.arange(len(ids) + 1)).tolist(),
        'latents': latents.tolist(),
        'values': values.tolist(),
    }

  def logits(
      self, text: str | list[int], *, member: str, keep_error: bool
  ) -> dict[str, Any]:
    """Returns the next tokens without and with a member spliced in."""
    static = self._check(member)
    ids, clean = self._clean(text)
    predicted = jax.device_get(clean.predicted)
    # With the error kept, nothing changes as long as no latent is edited.
    changed = predicted
    if not keep_error:
      changed = jax.device_get(
          passes.predict(
              self._config,
              self._params,
              clean.text,
              self._arrays[member],
              spliced=programs.Spliced(static.sae, static.reads, False),
              vocab=self._vocab,
          )
      )
    return {
        'clean': self._next(predicted.next),
        'spliced': self._next(changed.next),
        'loss': {
            'clean': plain.mean(predicted.losses[: len(ids) - 1]),
            'spliced': plain.mean(changed.losses[: len(ids) - 1]),
        },
    }

  def attribution(
      self, text: str | list[int], *, member: str, target: str | int | None
  ) -> dict[str, Any]:
    """Returns the effects of a member's latents on the next token's logit."""
    static = self._check(member)
    token = None if target is None else self._target(target)
    ids, clean = self._clean(text)
    logits, likeliest = jax.device_get(
        (clean.logits, clean.predicted.next.tokens[0])
    )
    token = int(likeliest) if token is None else token
    _, gradient = attributions.gradient_at(
        self._lm.model,
        jnp.pad(clean.text.tokens, ((0, 0), (0, 1))),
        static.reads,
        target=token,
        position=len(ids) - 1,
    )
    result = jax.device_get(
        passes.attribute(
            clean,
            gradient[0, :-1],
            self._arrays[member],
            member=static,
            count=_ENTRIES,
        )
    )
    error, bias = result.error[: len(ids)], result.affine.sum()
    shown = np.flatnonzero(result.effects)
    return {
        'tokens': self._named(ids),
        'target': self._named([token])[0],
        'logit': plain.number(logits[token]),
        'entries': [
            {
                'position': int(result.positions[i]),
                'latent': int(result.latents[i]),
                'value': plain.number(result.values[i]),
                'attribution': plain.number(result.effects[i]),
            }
            for i in shown
        ],
        'error': plain.numbers(error),
        'bias': plain.number(bias),
        'total': plain.number(result.latents_total + bias + error.sum()),
    }

  def generate(
      self,
      text: str | list[int],
      *,
      tokens: int,
      temperature: float,
      seed: int,
      member: str | None,
  ) -> dict[str, Any]:
    """Returns new tokens, with a member spliced in unless it is None."""
    new = self._generate(
        text, tokens, member, temperature=temperature, seed=seed
    )
    return {'tokens': self._named(new)}

  def steer(
      self,
      text: str | list[int],
      *,
      member: str,
      edits: list[fields.Edit],
      tokens: int,
      temperature: float,
      seed: int,
  ) -> dict[str, Any]:
    """Returns new tokens without and with edits of a member's latents."""
    edited = self._edited(member, edits)
    options = {'temperature': temperature, 'seed': seed}
    clean = self._generate(text, tokens, **options)
    steered = self._generate(text, tokens, edited=edited, **options)
    return {'plain': self._named(clean), 'edited': self._named(steered)}

  def _edited(self, member, edits):
    static = self._check(member)
    return steering.compiled(static, self._arrays[member], edits)

  def _generate(
      self, text, tokens, member=None, *, temperature=0.0, seed=0, edited=None
  ):
    ids, padded = self._text(text, tokens)
    spliced = arrays = None
    if member is not None:
      static, arrays = self._check(member), self._arrays[member]
      spliced = programs.Spliced(static.sae, static.reads, False)
    made = programs.generate(
        self._config,
        self._params,
        padded.tokens[0],
        padded.length,
        jnp.int32(tokens),
        programs.Sampling(jnp.float32(temperature), jax.random.key(seed)),
        sae_params=arrays,
        room=NEW_TOKENS,
        spliced=spliced,
        **edited or {},
    )
    # Sliced on the host, because a slice on the device is compiled.
    return np.asarray(made.tokens)[: int(made.count)]

  def _active(self, text, member):
    """Returns token ids, and the positions, latents and values of firings."""
    static = self._check(member)
    ids, clean = self._clean(text)
    width = static.sae.width
    bound = width if width <= _NARROW else _BOUND
    while True:
      result = jax.device_get(
          passes.active(clean, self._arrays[member], member=static, bound=bound)
      )
      if result.count.max() <= bound:
        break
      bound = min(2 * bound, width)
    at, column = np.nonzero(result.values)
    latents, values = (x[at, column] for x in result[:2])
    order = np.lexsort((latents, -np.abs(values), at))
    return ids, at[order], latents[order], values[order]

  def _clean(self, text: str | list[int]) -> tuple[np.ndarray, passes.Clean]:
    """Returns the token ids of a text and its pass without an SAE."""
    ids, padded = self._text(text)
    clean = passes.forward(
        self._config,
        self._params,
        padded,
        taps=self._taps,
        vocab=self._vocab,
    )
    return ids, clean

  def _text(
      self, text: str | list[int], new: int = 0
  ) -> tuple[np.ndarray, passes.Text]:
    """Returns the token ids of a text, BOS first, and the padded text.

    Args:
      text: The text, or its token ids.
      new: The number of tokens that must fit after it. If it is above 0, all
        texts are padded to one length, because generation compiles slowly.
    """
    if isinstance(text, str):
      text = self._lm.tokenizer.encode(text)
    limit = min(self.max_tokens, self._config.context - new)
    if len(text) >= limit:
      new_ones = f' before {new} new ones' if new else ''
      raise fields.Refused(
          413,
          f'text: {len(text) + 1} tokens with BOS, the limit is'
          f' {limit}{new_ones}; shorten it',
      )
    ids = self._lm.tokenize(text or [packing.BOS])
    rooms = self._lengths[-1:] if new else self._lengths
    room = next(n for n in rooms if n >= len(ids))
    padded = np.full((1, room), packing.PAD, np.int32)
    padded[0, : len(ids)] = ids
    return ids, passes.Text(jnp.asarray(padded), jnp.int32(len(ids)))

  def _target(self, target: str | int) -> int:
    """Returns the id of a target; raises UserError for several tokens."""
    token = self._lm.token_id(target)
    if not 0 <= token < self._vocab:
      raise fields.Refused(400, f'target: token ids are below {self._vocab}')
    return token

  def _check(self, member: str) -> passes.Member:
    if member not in self._static:
      raise fields.Refused(
          400,
          f'member: {fields.shown(member)} is not in this release; members:'
          f' {", ".join(self._static)}',
      )
    return self._static[member]

  def _named(self, ids) -> list[dict[str, Any]]:
    pieces = self._lm.pieces(ids)
    return [
        {'id': int(i), 'piece': piece}
        for i, piece in zip(ids, pieces, strict=True)
    ]

  def _next(self, following: passes.Next) -> list[dict[str, Any]]:
    named = self._named(np.asarray(following.tokens))
    numbers = zip(
        plain.numbers(following.logits),
        plain.numbers(following.probabilities),
        strict=True,
    )
    return [
        token | {'logit': logit, 'probability': probability}
        for token, (logit, probability) in zip(named, numbers, strict=True)
    ]


def lengths(config: lm.LmConfig) -> tuple[int, ...]:
  """Returns the lengths to which texts are padded."""
  return tuple(sorted({min(n, config.context) for n in LENGTHS}))
