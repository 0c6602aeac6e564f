"""Results of the public API: activations of a text, and generations."""

import dataclasses
import functools
import html
from typing import Any, NamedTuple

import numpy as np

from jumprelu import data, lm
from jumprelu.api import displays
from jumprelu.api.dictionary import Dictionary
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.data import packing
from jumprelu.lm import logit_effects


class Passed(NamedTuple):
  """The results of a forward pass of one text, on the host."""

  values: dict[lm.Tap, Float[np.ndarray, 'tokens d_site']]
  logits: Float[np.ndarray, 'tokens vocab']
  loss: Float[np.ndarray, ' tokens_after_first']


class Active(NamedTuple):
  """One active latent at one token.

  Attributes:
    latent: The number of the latent.
    value: The latent, in units of raw activations.
    effect: Its direct contribution to the logit of the token that follows
      (before the soft cap; `logit_effects`); NaN after the last token.
  """

  latent: int
  value: float
  effect: float

  def __repr__(self) -> str:
    return (
        f'Active(latent={self.latent}, value={self.value:.2f},'
        f' effect={self.effect:+.2f})'
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Activations:
  """A text's activations at an SAE's site, and the SAE's output.

  Rows are tokens, BOS first. The SAE is not applied to BOS: its latents there
  are zero, and its reconstruction there is the activation itself.

  Attributes:
    sae: The SAE.
    tokens: Token ids.
    pieces: The text of each token.
    inputs: The activations that the SAE reads, raw: `sae.encode(inputs)` is
      `latents`, except at BOS.
    targets: The activations that it reconstructs.
    latents: The latents.
    reconstruction: The SAE's output.
    error: targets - reconstruction.
    logits: The model's logits of each token's successor (without the SAE).
    loss: The loss in nats of each token after the first.
    keep: The tokens that the SAE was applied to.
  """

  sae: Dictionary
  tokens: Int[np.ndarray, ' tokens']
  pieces: list[str]
  inputs: Float[np.ndarray, 'tokens d_in']
  targets: Float[np.ndarray, 'tokens d_out']
  latents: Float[np.ndarray, 'tokens latents']
  reconstruction: Float[np.ndarray, 'tokens d_out']
  error: Float[np.ndarray, 'tokens d_out']
  logits: Float[np.ndarray, 'tokens vocab']
  loss: Float[np.ndarray, ' tokens_after_first']
  keep: Bool[np.ndarray, ' tokens']
  _residual: Float[np.ndarray, 'tokens model']
  _model: lm.LanguageModel

  @property
  def l0(self) -> Int[np.ndarray, ' tokens']:
    """The number of active latents at each token."""
    return (self.latents != 0).sum(-1)

  @functools.cached_property
  def effects(self) -> Float[np.ndarray, 'tokens latents']:
    """The direct effect of each latent on the logit of the next token."""
    reads, model = self.sae.reads, self._model
    rows = logit_effects.written(model, reads, self.sae.W_dec)
    following = logit_effects.unembedding(model, self.tokens[1:])
    scales = logit_effects.frozen_scales(
        model, reads, final=self._residual, target=self.targets
    )
    along = (following @ rows.T) / scales[:-1, None]
    end = np.full((1, along.shape[1]), np.nan, np.float32)
    return self.latents * np.concatenate([along, end])

  def top(self, k: int = 5) -> 'Top':
    """Returns the `k` largest latents of each token.

    >>> acts.top(2)
    token     latent: value (effect on the next logit)
    '<s>'
    'with'    0: 10.2... (-0.1...)  333: 6.5... (+0.7...)
    ...
    '.'       371: 11.2... (-)  359: 7.3... (-)
    >>> acts.top(2)[4][0]
    Active(latent=344, value=8.6..., effect=+2.9...)
    """
    count = min(k, self.latents.shape[1])
    order = np.argsort(-self.latents, axis=-1, kind='stable')[:, :count]
    rows = [
        [
            Active(int(j), float(values[j]), float(effects[j]))
            for j in latents
            if values[j]
        ]
        for latents, values, effects in zip(
            order, self.latents, self.effects, strict=True
        )
    ]
    return Top(self.pieces, rows)

  def __repr__(self) -> str:
    kept = self.keep.sum()
    l0 = self.l0[self.keep].mean() if kept else 0.0
    return (
        f'Activations({len(self.tokens)} tokens, BOS included; {self.sae!r};'
        f' L0 {l0:.1f} here)'
    )

  def _repr_html_(self) -> str:
    return self.top()._repr_html_()

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = (
        *('sae', 'pieces', 'tokens', 'inputs', 'targets', 'latents'),
        *('reconstruction', 'error', 'logits', 'loss', 'keep'),
    )
    return displays.constructor(self, names, path, subtree_renderer)


@dataclasses.dataclass(frozen=True, repr=False)
class Top:
  """The largest latents of each token, as a list of `Active` per token."""

  pieces: list[str]
  rows: list[list[Active]]

  def __iter__(self):
    return iter(zip(self.pieces, self.rows, strict=True))

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> list[Active]:
    return self.rows[index]

  def __repr__(self) -> str:
    width = max((len(repr(p)) for p in self.pieces), default=0)
    lines = [f'{"token":{width}}  latent: value (effect on the next logit)']
    for piece, row in self:
      cells = '  '.join(
          f'{a.latent}: {a.value:.2f} ({_signed(a)})' for a in row
      )
      lines.append(f'{piece!r:{width}}  {cells}'.rstrip())
    return '\n'.join(lines)

  def _repr_html_(self) -> str:
    largest = max((row[0].value for row in self.rows if row), default=1.0)
    rows = []
    for piece, row in self:
      shade = displays.shade(row[0].value if row else 0.0, largest)
      cells = ''.join(
          f'<td>{a.latent}: {a.value:.2f} <small>({_signed(a)})</small></td>'
          for a in row
      )
      rows.append(
          f'<tr><td style="{shade};text-align:left">'
          f'<code>{html.escape(repr(piece))}</code></td>{cells}</tr>'
      )
    return (
        '<table><thead><tr><th>token</th>'
        '<th colspan="99" style="text-align:left">latent: value (effect on the'
        f' next logit)</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    return displays.constructor(
        self, ('pieces', 'rows'), path, subtree_renderer
    )


def _signed(active: Active) -> str:
  return '-' if np.isnan(active.effect) else f'{active.effect:+.2f}'


class Generation(NamedTuple):
  """A continuation of a prompt.

  Attributes:
    prompt: The prompt's token ids, BOS first.
    tokens: The new token ids; EOS is the last if it was generated.
    logits: The logits that each new token was chosen from.
  """

  prompt: Int[np.ndarray, ' tokens']
  tokens: Int[np.ndarray, ' new_tokens']
  logits: Float[np.ndarray, 'new_tokens vocab']
  tokenizer: data.Tokenizer

  @property
  def text(self) -> str:
    """The prompt and its continuation."""
    return self.tokenizer.decode([*self.prompt.tolist(), *self.tokens.tolist()])

  def __repr__(self) -> str:
    return f'Generation({self.text!r})'

  def _repr_html_(self) -> str:
    prompt, new = (
        html.escape(self.tokenizer.decode(ids.tolist()))
        for ids in (self.prompt, self.tokens)
    )
    return f'<pre style="white-space:pre-wrap">{prompt}<mark>{new}</mark></pre>'

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = ('text', 'prompt', 'tokens', 'logits')
    return displays.constructor(self, names, path, subtree_renderer)


def make(
    model: Any,
    sae: Dictionary,
    tokens: Int[np.ndarray, ' tokens'],
    passed: Passed,
) -> Activations:
  """Returns the activations of a text from the results of a forward pass."""
  values = passed.values
  reads, keep = sae.reads, np.asarray(packing.keep_mask(tokens))
  inputs = np.concatenate([values[tap] for tap in reads.inputs], -1)
  targets = np.concatenate([values[tap] for tap in reads.targets], -1)
  if not reads.input_gain:
    inputs = inputs / np.asarray(
        lm.input_gains(model.config, model.params, reads)
    )
  kept = np.where(keep[:, None], inputs, 0)
  latents = sae.encode(kept)
  reconstruction = sae.decode(latents, kept)
  mask = keep[:, None]
  latents = np.where(mask, latents, 0)
  reconstruction = np.where(mask, reconstruction, targets)
  last = lm.Tap(model.config.layers - 1, lm.Site.RESID_POST)
  return Activations(
      sae=sae,
      tokens=tokens,
      pieces=model.pieces(tokens),
      inputs=inputs,
      targets=targets,
      latents=latents,
      reconstruction=reconstruction,
      error=targets - reconstruction,
      logits=passed.logits,
      loss=passed.loss,
      keep=keep,
      _residual=values[last],
      _model=model.model,
  )
