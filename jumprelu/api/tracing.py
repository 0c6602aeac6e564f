"""Effects of the latents of several SAEs on a difference of two logits."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jumprelu import errors
from jumprelu.api import displays, node_effects, results, texts
from jumprelu.api.dictionary import Dictionary
from jumprelu.api.language_model import LanguageModel

METHODS = ('gradient', 'integrated', 'patching', 'direct')


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
  sites: list[node_effects.SiteEffects]
  _problem: Any

  def top(self, k: int = 10) -> list[node_effects.Node]:
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

  def _ranked(self) -> list[node_effects.Node]:
    nodes = []
    for number, site in enumerate(self.sites):
      for token, latent in zip(*np.nonzero(site.latents), strict=True):
        effect = float(site.latents[token, latent])
        nodes.append(node_effects.Node(number, int(token), int(latent), effect))
      for token in np.flatnonzero(site.error):
        nodes.append(
            node_effects.Node(
                number, int(token), None, float(site.error[token])
            )
        )
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

  def _name(self, node: node_effects.Node) -> str:
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
  _check(saes, method, steps, start)
  acts = [model.run(text, sae) for sae in saes]
  position = texts.index(position, len(acts[0].tokens))
  answer = model.token_id(answer)
  foil = None if foil is None else model.token_id(foil)
  piece = model.tokenizer.piece
  named = piece(answer), None if foil is None else piece(foil)
  problem = node_effects.Problem(model, saes, acts, position, (answer, foil))
  metric, sites = problem.solve(method, steps, start)
  return Trace(saes, acts, method, *named, position, metric, sites, problem)


def _check(saes, method, steps, start):
  """Raises UserError for arguments that do not need the model to be checked."""
  if method not in METHODS:
    raise errors.UserError(f'method={method!r}: use {", ".join(METHODS)}')
  if not saes or steps < 1:
    name = 'saes' if not saes else 'steps'
    raise errors.UserError(f'trace: {name} is empty or 0; pass at least one')
  if not 0 <= start < 1:
    raise errors.UserError(f'trace: start={start}: must be from 0 to below 1')
