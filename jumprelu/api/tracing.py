"""Effects of the latents of several SAEs on a difference of two logits."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.api import displays, results, texts
from jumprelu.api.dictionary import Dictionary
from jumprelu.api.language_model import LanguageModel
from jumprelu.array_typing import Float
from jumprelu.evals import edits, site_effects
from jumprelu.evals.measures import attribution
from jumprelu.lm import logit_effects

METHODS = ('gradient', 'integrated', 'patching', 'direct')
# Nodes that are patched in one pass.
_BATCH = 16


class Node(NamedTuple):
  """A latent, or the error of an SAE, at one token.

  Attributes:
    sae: The index of the SAE in the trace.
    token: The index of the token, BOS included.
    latent: The number of the latent; None for the error.
    effect: The effect on the metric.
  """

  sae: int
  token: int
  latent: int | None
  effect: float


class SiteEffects(NamedTuple):
  """The effects of the nodes of one SAE.

  Attributes:
    latents: The effect of each latent at each token.
    affine: That of the decoder's bias and skip term; 0 for `patching`.
    error: The effect of the error.
  """

  latents: Float[np.ndarray, 'tokens latents']
  affine: Float[np.ndarray, ' tokens']
  error: Float[np.ndarray, ' tokens']


class Point(NamedTuple):
  """A circuit of the nodes with the largest effects.

  Both numbers are shares of the metric between the circuit without nodes, 0,
  and the model, 1 (Marks et al., arXiv 2403.19647).

  Attributes:
    nodes: The number of its nodes.
    faithfulness: The share that the circuit alone has.
    completeness: The share that the model without these nodes has; small if
      the circuit lacks nothing.
  """

  nodes: int
  faithfulness: float
  completeness: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace:
  """The effects of all nodes of several SAEs on one prediction.

  Attributes:
    saes: The SAEs.
    acts: The activations of the text at each SAE.
    method: The method.
    answer: The text of the answer.
    foil: The text of the foil; None for the mean of all logits.
    position: The token after which the answer is predicted.
    metric: The answer's logit minus the foil's.
    sites: The effects of each SAE.
  """

  saes: list[Dictionary]
  acts: list[results.Activations]
  method: str
  answer: str
  foil: str | None
  position: int
  metric: float
  sites: list[SiteEffects]
  _problem: Any

  def top(self, k: int = 10) -> list[Node]:
    """Returns the `k` nodes of largest effect, in magnitude.

    >>> trace = jumprelu.trace(lm, 'import os\\n', [sae], answer='import')
    >>> len(trace.top(3))
    3
    """
    return [node for node in self._ranked()[:k] if node.effect]

  def curve(self, sizes: Sequence[int] = (10, 30, 100, 300)) -> list[Point]:
    """Returns faithfulness and completeness of circuits of these sizes.

    Raises:
      UserError: Two SAEs reconstruct the same activations.

    >>> trace = jumprelu.trace(lm, 'import os\\n', [sae], answer='import')
    >>> [point.nodes for point in trace.curve([1, 100_000])][0]
    1
    """
    ranked = [node for node in self._ranked() if node.effect]
    none, every = (self._problem.circuit([], without=w) for w in (False, True))
    points = []
    for size in sizes:
      nodes = ranked[:size]
      shares = [
          (self._problem.circuit(nodes, without=without) - none)
          / (every - none)
          for without in (False, True)
      ]
      points.append(Point(len(nodes), *shares))
    return points

  def _ranked(self) -> list[Node]:
    nodes = []
    for number, site in enumerate(self.sites):
      for token, latent in zip(*np.nonzero(site.latents), strict=True):
        effect = float(site.latents[token, latent])
        nodes.append(Node(number, int(token), int(latent), effect))
      for token in np.flatnonzero(site.error):
        nodes.append(Node(number, int(token), None, float(site.error[token])))
    return sorted(nodes, key=lambda node: -abs(node.effect))

  def __repr__(self) -> str:
    pieces = self.acts[0].pieces
    foil = 'the mean' if self.foil is None else repr(self.foil)
    lines = [
        f'Trace of {self.answer!r} against {foil} after token {self.position}'
        f' {pieces[self.position]!r}: {self.metric:.2f} ({self.method})'
    ]
    for sae, site in zip(self.saes, self.sites, strict=True):
      lines.append(
          f'  {sae.reads.name}, layer {sae.layer}: latents'
          f' {site.latents.sum():+.2f}, biases {site.affine.sum():+.2f}, errors'
          f' {site.error.sum():+.2f}'
      )
    lines += [
        f'  {node.effect:+.3f}  {self._name(node)} at {node.token}'
        f' {pieces[node.token]!r}'
        for node in self.top()
    ]
    return '\n'.join(lines)

  def _name(self, node: Node) -> str:
    sae = self.saes[node.sae]
    what = 'error' if node.latent is None else f'latent {node.latent}'
    return f'{sae.reads.name}, layer {sae.layer}: {what}'

  def _repr_html_(self) -> str:
    return displays.preformatted(repr(self).split('\n'))


def trace(
    model: LanguageModel,
    text: texts.Text,
    saes: Sequence[Dictionary],
    *,
    answer: str | int | np.integer,
    foil: str | int | np.integer | None = None,
    position: int = -1,
    method: str = 'gradient',
    steps: int = 16,
    start: int | float = 0.0,
) -> Trace:
  """Returns the effects of all latents and errors on a difference of logits.

  The metric is the answer's logit minus the foil's. Every SAE is examined in
  the model without SAEs, in which its error is a node beside its latents.

      gradient    activation times gradient: one backward pass for all SAEs
      integrated  the gradient's mean on the path on which latents and error of
                  one SAE rise from 0; its effects add up to the difference
                  between the model and the SAE's bias alone. Far from the model
                  it is a worse estimate of patching than the gradient
      patching    the exact fall of the metric if the node alone is removed: a
                  forward pass for each active node
      direct      the node's part of the logits through the final norm, whose
                  scale is frozen, before the soft cap; only at `position`

  Args:
    model: The language model, without SAEs and edits.
    text: The text, or token ids.
    saes: The SAEs, of any sites and layers.
    answer: The token whose logit is explained, as text or id.
    foil: The token that it is compared with; None for the mean of all logits.
    position: The token after which both are predicted.
    method: One of the above.
    steps: The number of points on the path of `integrated`.
    start: The share of latents and error at the start of this path, below 1.

  Raises:
    UserError: An argument does not fit.

  >>> jumprelu.trace(lm, 'import os\\n', [sae], answer='import', foil='def')
  Trace of 'import' against 'def' after token 3 '\\n': ... (gradient)
    resid_post, layer 2: latents ..., biases ..., errors ...
  ...
  """
  saes = list(saes)
  if method not in METHODS:
    raise errors.UserError(f'method={method!r}: use {", ".join(METHODS)}')
  if not saes or steps < 1:
    name = 'saes' if not saes else 'steps'
    raise errors.UserError(f'trace: {name} is empty or 0; pass at least one')
  if not 0 <= start < 1:
    raise errors.UserError(f'trace: start={start}: must be from 0 to below 1')
  acts = [model.run(text, sae) for sae in saes]
  position = texts.index(position, len(acts[0].tokens))
  answer = model.token_id(answer)
  foil = None if foil is None else model.token_id(foil)
  piece = model.tokenizer.piece
  named = piece(answer), None if foil is None else piece(foil)
  problem = _Problem(model, saes, acts, position, (answer, foil))
  metric, sites = problem.solve(method, steps, start)
  return Trace(saes, acts, method, *named, position, metric, sites, problem)


class _Problem:
  """One prediction and the SAEs that explain it."""

  def __init__(self, model, saes, acts, position, ids):
    self._model, self._saes, self._acts = model, saes, acts
    self._position, self._ids = position, ids
    self._tokens = jnp.asarray(texts.padded(acts[0].tokens))
    answer, foil = ids
    self._metric = site_effects.Metric(
        jnp.int32(position),
        jnp.int32(answer),
        jnp.int32(-1 if foil is None else foil),
    )
    self._taps = sorted({sae.reads.target for sae in saes})

  def solve(self, method, steps, start):
    """Returns the metric, and the effects of each SAE."""
    answer, foil = self._ids
    logits = self._acts[0].logits[self._position]
    other = logits.mean() if foil is None else logits[foil]
    clean = float(logits[answer] - other)
    if method == 'gradient':
      _, gradient = self._call(site_effects.gradients, {}, 1)
      sites = [
          self._terms(acts, gradient[acts.sae.reads.target][0])
          for acts in self._acts
      ]
    elif method == 'integrated':
      sites = [self._integrated(acts, steps, start) for acts in self._acts]
    elif method == 'patching':
      # By the same program, so that rounding errors cancel.
      whole = self._call(site_effects.values, {}, _BATCH)[0]
      sites = [self._patched(acts, whole) for acts in self._acts]
    else:
      sites = [self._direct(acts) for acts in self._acts]
    return clean, sites

  def _call(self, function, changes, count):
    """Returns the function's result for changes at some taps."""
    room = self._tokens.shape[1]
    whole = {}
    for tap in self._taps:
      size = self._model.config.d_site(tap.site)
      whole[tap] = np.zeros((count, room, size), np.float32)
      if tap in changes:
        whole[tap][:, : changes[tap].shape[1]] = changes[tap]
    result = function(
        self._model.config,
        self._model.params,
        self._tokens,
        self._metric,
        whole,
    )
    return jax.device_get(result)

  def _terms(self, acts, gradient):
    keep, count = acts.keep[:, None], len(acts.tokens)
    terms = _terms(
        acts.sae.sae,
        acts.sae.device_params,
        np.where(keep, acts.inputs, 0),
        np.where(keep, acts.targets, 0),
        latents=acts.latents,
        gradient=np.where(keep, gradient[:count], 0),
    )
    return SiteEffects(*map(np.asarray, terms))

  def _affine(self, acts):
    """Returns the decoder's bias and skip term; the rest are nodes."""
    kept = np.where(acts.keep[:, None], acts.inputs, 0)
    silent = np.zeros_like(acts.latents)
    return np.asarray(acts.sae.decode(silent, kept))

  def _integrated(self, acts, steps, start):
    # The points are denser near the start, because a norm after a small residual
    # stream changes fast: squares of midpoints, with weights that add up to 1.
    roots = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    shares, weights = start + (1 - start) * roots**2, 2 * roots / steps
    nodes = np.where(acts.keep[:, None], acts.targets - self._affine(acts), 0)
    changes = (shares - 1)[:, None, None] * nodes[None]
    _, gradient = self._call(
        site_effects.gradients, {acts.sae.reads.target: changes}, steps
    )
    mean = np.tensordot(weights, gradient[acts.sae.reads.target], 1)
    return self._terms(acts, mean)

  def _patched(self, acts, clean):
    """Returns the falls of the metric if each node alone is removed."""
    tap, rows = acts.sae.reads.target, acts.sae.W_dec
    tokens, latents = np.nonzero(acts.latents)
    removed = list(-acts.latents[tokens, latents][:, None] * rows[latents])
    removed += list(-acts.error[acts.keep])
    at = [*tokens, *np.flatnonzero(acts.keep)]
    falls = np.zeros(len(at))
    for start in range(0, len(at), _BATCH):
      batch = range(start, min(start + _BATCH, len(at)))
      changes = np.zeros((_BATCH, *acts.targets.shape), np.float32)
      for row, node in enumerate(batch):
        changes[row, at[node]] = removed[node]
      values = self._call(site_effects.values, {tap: changes}, _BATCH)
      falls[start : batch.stop] = clean - values[: len(batch)]
    effects = np.zeros_like(acts.latents)
    effects[tokens, latents] = falls[: len(tokens)]
    error = np.zeros(len(acts.tokens), np.float32)
    error[acts.keep] = falls[len(tokens) :]
    return SiteEffects(effects, np.zeros_like(error), error)

  def _direct(self, acts):
    """Returns direct effects at the position; those elsewhere are 0."""
    model, at = self._model.model, self._position
    answer, foil = self._ids
    toward = logit_effects.unembedding(model, np.array([answer]))[0]
    if foil is None:
      toward = toward - logit_effects.unembedding(model).mean(0)
    else:
      toward = toward - logit_effects.unembedding(model, np.array([foil]))[0]
    last = lm.Tap(model.config.layers - 1, lm.Site.RESID_POST)
    final = self._model.activations(acts.tokens, last)[last]
    reads = acts.sae.reads
    scale = logit_effects.frozen_scales(
        model, reads, final=final, target=acts.targets
    )[at]
    parts = np.stack([self._affine(acts)[at], acts.error[at]])
    along = logit_effects.written(
        model, reads, np.concatenate([acts.sae.W_dec, parts])
    )
    along = along @ toward / scale * acts.keep[at]
    effects = np.zeros_like(acts.latents)
    affine, error = np.zeros((2, len(acts.tokens)), np.float32)
    effects[at] = acts.latents[at] * along[:-2]
    affine[at], error[at] = along[-2:]
    return SiteEffects(effects, affine, error)

  def circuit(self, nodes: Sequence[Node], *, without: bool) -> float:
    """Returns the metric with these nodes alone, or with all others alone."""
    if len(self._taps) < len(self._saes):
      raise errors.UserError(
          'curve: two SAEs reconstruct the same activations; trace one of them'
      )
    room, kept = self._tokens.shape[1], []
    for sae in self._saes:
      latents = np.full((room, sae.width), without)
      kept.append(site_effects.Kept(latents, np.full(room, without)))
    for node in nodes:
      part = kept[node.sae]
      if node.latent is None:
        part.error[node.token] = not without
      else:
        part.latents[node.token, node.latent] = not without
    value = site_effects.circuit(
        self._model.config,
        self._model.params,
        self._tokens,
        self._metric,
        [sae.to_raw(self._model.model) for sae in self._saes],
        kept,
        targets=tuple(
            edits.Target(sae.reads.target, sae.sae, sae.reads)
            for sae in self._saes
        ),
    )
    return float(value)


_terms: Any = jax.jit(attribution.terms, static_argnums=0)
