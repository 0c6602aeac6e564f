"""Attributions: linear effects of an SAE's latents on one logit.

The metric, its gradient and the terms are those of the measure `attribution`
(`evals/measures/`), which sums them over many texts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.api import displays, texts
from jumprelu.api.dictionary import Dictionary
from jumprelu.api.results import Activations
from jumprelu.array_typing import Array, Float, Int
from jumprelu.evals import splice
from jumprelu.evals.measures import attribution, target_metric


class Effect(NamedTuple):
  """The linear effect of one latent at one token.

  Attributes:
    token: The token's index in the text, BOS included.
    latent: The number of the latent.
    effect: The effect on the metric.
  """

  token: int
  latent: int
  effect: float

  def __repr__(self) -> str:
    return (
        f'Effect(token={self.token}, latent={self.latent},'
        f' effect={self.effect:+.2f})'
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attribution:
  """Linear effects on a target token's logit minus the mean of all logits.

  `effects`, `affine` and `error` of all tokens add up to the gradient times
  the SAE's target activations (`total`), over the tokens that the SAE is
  applied to.

  Attributes:
    pieces: The text of each token.
    target: The text of the target token.
    position: The token after which the target is predicted.
    metric: The target's logit minus the mean of all logits.
    effects: The effect of each latent at each token.
    affine: The effect of the decoder's bias and skip term at each token.
    error: The effect of the reconstruction error at each token.
  """

  pieces: list[str]
  target: str
  position: int
  metric: float
  effects: Float[np.ndarray, 'tokens latents']
  affine: Float[np.ndarray, ' tokens']
  error: Float[np.ndarray, ' tokens']

  @property
  def total(self) -> float:
    """The sum of all effects."""
    return float(self.effects.sum() + self.affine.sum() + self.error.sum())

  def top(self, k: int = 10) -> list[Effect]:
    """Returns the `k` effects of largest magnitude.

    >>> lm.attribute(acts, target='open').top(2)
    [Effect(token=12, latent=453, effect=+0.6...), Effect(...)]
    """
    flat = self.effects.reshape(-1)
    order = np.argsort(-np.abs(flat), kind='stable')[:k]
    width = self.effects.shape[1]
    return [
        Effect(int(i // width), int(i % width), float(flat[i]))
        for i in order
        if flat[i]
    ]

  def __repr__(self) -> str:
    lines = [
        f'Attribution of {self.target!r} after token {self.position}'
        f' {self.pieces[self.position]!r}: logit minus mean {self.metric:.2f}',
        f'errors {self.error.sum():+.2f}, biases {self.affine.sum():+.2f},'
        f' latents {self.effects.sum():+.2f}, largest:',
    ]
    lines += [
        f'  {effect:+.2f}  latent {latent} at {token} {self.pieces[token]!r}'
        for token, latent, effect in self.top()
    ]
    return '\n'.join(lines)

  def _repr_html_(self) -> str:
    by_token = self.effects.sum(-1)
    largest = float(np.abs(by_token).max(initial=0))
    head = displays.preformatted(repr(self).split('\n')[:2])
    rows = [
        (f'{effect:+.2f}', f'{latent}', f'{token} {self.pieces[token]!r}')
        for token, latent, effect in self.top()
    ]
    return (
        head
        + displays.heat(self.pieces, by_token.tolist(), largest)
        + displays.table(('effect', 'latent', 'token'), rows)
    )

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = (
        *('target', 'position', 'metric', 'total', 'pieces'),
        *('effects', 'affine', 'error'),
    )
    return displays.constructor(self, names, path, subtree_renderer)


def attribute(
    model: Any,
    acts: Activations | texts.Text,
    *,
    sae: Dictionary | None,
    target: str | int | np.integer,
    position: int,
) -> Attribution:
  """Returns the effects on `target` after `position` (`LanguageModel`)."""
  if not isinstance(acts, Activations):
    if sae is None:
      raise errors.UserError('attribute: pass sae=, or the result of run')
    acts = model.run(acts, sae)
  elif sae is not None and sae is not acts.sae:
    acts = model.run(acts.tokens, sae)
  count = len(acts.tokens)
  position, token = texts.index(position, count), model.token_id(target)
  sae, keep = acts.sae, acts.keep[:, None]
  metric, gradients = gradient_at(
      model.model,
      jnp.asarray(texts.padded(acts.tokens, more=1)),
      sae.reads,
      target=token,
      position=position,
  )
  terms = _terms(
      sae.sae,
      sae.device_params,
      np.where(keep, acts.inputs, 0),
      np.where(keep, acts.targets, 0),
      latents=acts.latents,
      gradient=gradients[0, :count],
  )
  return Attribution(
      acts.pieces,
      model.tokenizer.piece(token),
      position,
      float(metric[0]),
      *map(np.asarray, terms),
  )


def gradient_at(
    model: lm.LanguageModel,
    tokens: Int[Array, '1 positions'],
    reads: lm.Reads,
    *,
    target: int,
    position: int,
) -> tuple[Float[Array, '1'], Float[Array, '1 positions d_out']]:
  """Returns the metric, and its gradient at the activations of the target tap.

  Args:
    model: The language model.
    tokens: A text, padded by at least one token.
    reads: The taps of the SAE.
    target: The token whose logit is explained.
    position: The token after which it is predicted.
  """
  objective = _objective(model, reads.target)
  at = jnp.array([position], jnp.int32)
  batch = _clean(
      model,
      model.params,
      tokens,
      jnp.int32(target),
      at,
      taps=tuple(sorted(splice.taps_for([reads]))),
  )
  return objective.gradient(batch, at)


_terms = jax.jit(attribution.terms, static_argnums=0)


@functools.lru_cache(maxsize=16)
def _objective(
    model: lm.LanguageModel, target: lm.Tap
) -> target_metric.Objective:
  """Returns compiled functions, kept because each call compiles new ones."""
  return target_metric.make(model, target)


@functools.partial(jax.jit, static_argnums=0, static_argnames='taps')
def _clean(model, params, tokens, target, at, *, taps):
  """Returns the clean pass, with the target after the token at `at`.

  The objective reads the target from there. It may replace a token of the text,
  which cannot affect earlier positions.
  """
  batch = splice.forward(model, params, tokens, taps=taps)
  return batch._replace(tokens=batch.tokens.at[0, at + 1].set(target))
