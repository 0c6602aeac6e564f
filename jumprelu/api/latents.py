"""One latent of an SAE: where it fires, and which tokens it promotes."""

import dataclasses
import functools
import operator
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import data, errors, lm
from jumprelu.api import displays
from jumprelu.api import language_model as language_model_lib
from jumprelu.api.dictionary import Dictionary
from jumprelu.array_typing import Float, Int
from jumprelu.data import packing
from jumprelu.evals import splice
from jumprelu.evals import text as text_lib
from jumprelu.files import progress_line
from jumprelu.lm import gemma, logit_effects
from jumprelu.release import evaluation

# The largest array of latents that a batch may make, in bytes.
_BATCH_BYTES = 1 << 28
_BINS = 40


class Example(NamedTuple):
  """A text window around an activation.

  Attributes:
    value: The latent at the token.
    pieces: The text of each token of the window.
    values: The latent at each token of the window.
    index: The token's index in the window.
  """

  value: float
  pieces: list[str]
  values: Float[np.ndarray, ' window']
  index: int

  def __repr__(self) -> str:
    text = list(self.pieces)
    text[self.index] = f'>>{text[self.index]}<<'
    return f'{self.value:8.2f}  {"".join(text)!r}'


class Examples(list[Example]):
  """A list of examples, the largest value first."""

  def __repr__(self) -> str:
    return '\n'.join(map(repr, self)) or 'no examples'

  def _repr_html_(self) -> str:
    largest = max((e.value for e in self), default=0.0)
    rows = ''.join(
        f'<tr><td>{e.value:.2f}</td><td style="text-align:left">'
        f'{displays.heat(e.pieces, e.values.tolist(), largest)}</td></tr>'
        for e in self
    )
    return f'<table>{rows}</table>' if rows else '<p>no examples</p>'


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Latent:
  """One latent: its activations on text, its logits and its neighbours.

  Attributes:
    index: The number of the latent.
    sae: The SAE.
    tokens: The number of tokens that were read, without BOS, EOS and padding.
    count: The number of these tokens on which the latent fires.
    mean: Its mean where it fires; 0 if it never does.
    largest: Its largest value.
    threshold: The threshold of its pre-activation; None without thresholds.
    histogram: Counts of values, in equal bins from 0 to `largest`.
    examples: The strongest activations, at most one from each document.
    top_tokens: (text, mean value, count) of the tokens with the largest mean.
    promoted: (text, effect) of the tokens whose logits it raises most.
    suppressed: The same of the tokens whose logits it lowers most.
    neighbours: (latent, cosine) of the nearest decoder rows.
  """

  index: int
  sae: Dictionary
  tokens: int
  count: int
  mean: float
  largest: float
  threshold: float | None
  histogram: Int[np.ndarray, ' bins']
  examples: Examples
  top_tokens: list[tuple[str, float, int]]
  promoted: list[tuple[str, float]]
  suppressed: list[tuple[str, float]]
  neighbours: list[tuple[int, float]]

  @property
  def frequency(self) -> float:
    """The share of tokens on which the latent fires."""
    return self.count / max(self.tokens, 1)

  def __repr__(self) -> str:
    return '\n'.join([*self._head(), *map(repr, self.examples)])

  def _head(self) -> list[str]:
    """Returns the lines before the examples."""
    lines = [
        f'latent {self.index} of {self.sae!r}',
        f'fires on {self.frequency:.3%} of {self.tokens:,} tokens; mean'
        f' {self.mean:.2f}, largest {self.largest:.2f}'
        + (f', threshold {self.threshold:.2f}' if self.threshold else ''),
        f'promotes {_list(self.promoted)}',
        f'suppresses {_list(self.suppressed)}',
        'neighbours ' + ', '.join(f'{i} ({c:.2f})' for i, c in self.neighbours),
    ]
    if self.count:
      bars = displays.histogram(self.histogram)
      lines.insert(2, f'values 0 |{bars}| {self.largest:.2f}, log scale')
    return lines

  def _repr_html_(self) -> str:
    lines = [line for line in self._head() if not line.startswith('values')]
    bars = displays.histogram_svg(self.histogram, self.largest, self.threshold)
    return displays.preformatted(lines) + bars + self.examples._repr_html_()

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = (
        *('index', 'sae', 'tokens', 'count', 'frequency', 'mean', 'largest'),
        *('threshold', 'histogram', 'promoted', 'suppressed', 'neighbours'),
        *('top_tokens', 'examples'),
    )
    return displays.constructor(self, names, path, subtree_renderer)


def describe(
    sae: Dictionary,
    model: language_model_lib.LanguageModel,
    index: int | np.integer,
    *,
    k: int = 10,
    text: str | os.PathLike[str] | None = None,
    tokens: int = 100_000,
    window: int = 10,
) -> Latent:
  """Returns everything about one latent (`SAE.latent`).

  The first call reads the text; later calls with other latents of the same SAE
  reuse its activations.

  Args:
    sae: The SAE.
    model: Its language model.
    index: The latent.
    k: The number of examples, tokens and neighbours.
    text: The text, as `--data` takes it; the training text's if None. Only
      held-out documents are read.
    tokens: The number of positions to read.
    window: The number of tokens shown before and after an example.

  Raises:
    UserError: There is no such latent.
  """
  index, tokens = operator.index(index), operator.index(tokens)
  text = None if text is None else os.fspath(text)
  if tokens < 1:
    raise errors.UserError(f'tokens={tokens}, but 1 is the least')
  if not 0 <= index < sae.width:
    raise errors.UserError(
        f'latent {index}: {sae!r} has latents 0 to {sae.width - 1}'
    )
  firings = _firings(sae, model, text, tokens)
  at, values = firings.of(index)
  promoted, suppressed = _logits(model, sae, index, k)
  largest = float(values.max(initial=0))
  threshold = sae.params.get('threshold')
  return Latent(
      index=index,
      sae=sae,
      tokens=firings.kept,
      count=len(values),
      mean=float(values.mean()) if len(values) else 0.0,
      largest=largest,
      threshold=None if threshold is None else float(threshold[index]),
      histogram=np.histogram(values, _BINS, (0, largest or 1))[0],
      examples=_examples(firings, at, values, model, k, window),
      top_tokens=_top_tokens(firings, at, values, model, k),
      promoted=promoted,
      suppressed=suppressed,
      neighbours=_neighbours(sae, index, k),
  )


class Firings(NamedTuple):
  """The active latents on some rows of text, sorted by latent.

  Attributes:
    rows: Token ids.
    documents: The number of each token's document.
    kept: The number of tokens that the SAE was applied to.
    starts: Where each latent's firings start in the next two.
    at: The flat position of each firing in `rows`.
    values: The latent at each firing.
  """

  rows: Int[np.ndarray, 'rows positions']
  documents: Int[np.ndarray, 'rows positions']
  kept: int
  starts: Int[np.ndarray, ' latents_and_end']
  at: Int[np.ndarray, ' firings']
  values: Float[np.ndarray, ' firings']

  def of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions and values of one latent's firings."""
    span = slice(self.starts[index], self.starts[index + 1])
    return self.at[span], self.values[span]


@functools.lru_cache(maxsize=2)
def _firings(
    sae: Dictionary,
    model: language_model_lib.LanguageModel,
    text: str | None,
    tokens: int,
) -> Firings:
  """Returns all firings of an SAE on held-out text."""
  training = sae.config['training']
  prepared = data.prepare(
      text or training.get('data', 'stdlib'),
      model.tokenizer,
      evaluation.corpus_config(training),
  )
  cache = prepared.held_out
  rows_of_batch = max(
      1, _BATCH_BYTES // (4 * sae.width * cache.sequence_length)
  )
  sample = text_lib.sample(cache, tokens, sequences=min(32, rows_of_batch))
  params = sae.to_raw(model.model)
  parts, kept, start = [], 0, 0
  progress = progress_line.ProgressLine(
      'activations', -(-len(sample.rows) // sample.sequences)
  )
  for batch in progress.over(text_lib.batches(sample)):
    latents, keep = _encode_batch(
        model.model.config, model.params, params, batch,
        sae=sae.sae, reads=sae.reads, user_prefix=cache.user_prefix,
    )  # fmt: skip
    flat = np.asarray(latents).reshape(-1, sae.width)
    at, latent = np.nonzero(flat)
    parts.append((at + start, latent, flat[at, latent]))
    kept += int(keep)
    start += len(flat)
  at, latent, values = (np.concatenate(x) for x in zip(*parts, strict=True))
  order = np.argsort(latent, kind='stable')
  starts = np.searchsorted(latent[order], np.arange(sae.width + 1))
  return Firings(
      cache.tokens_at(sample.rows),
      text_lib.documents(sample),
      kept,
      starts,
      at[order],
      values[order],
  )


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=('sae', 'reads', 'user_prefix')
)
def _encode_batch(
    config, lm_params, params, tokens, *, sae, reads, user_prefix
):
  """Returns latents [sequences, positions, latents] and the kept tokens."""
  _, values = gemma.run(
      config,
      lm_params,
      tokens,
      positions=jnp.asarray(packing.positions(tokens)),
      segments=jnp.asarray(packing.segments(tokens)),
      num_layers=max(reads.layers) + 1,
      taps=frozenset(reads.inputs),
  )
  limits = {t: x for t, x in lm.all_limits([reads]).items() if t in values}
  keep = packing.keep_mask(tokens, user_prefix)
  keep &= splice.within_limits(values, limits)
  inputs = jnp.concatenate([values[tap] for tap in reads.inputs], -1)
  inputs = jnp.where(keep[..., None], inputs.astype(jnp.float32), 0)
  latents = sae.encode(params, inputs)
  return jnp.where(keep[..., None], latents, 0), keep.sum()


def _examples(firings, at, values, model, k, window) -> Examples:
  """Returns the strongest firings, at most one from each document."""
  examples, seen = Examples(), set()
  length = firings.rows.shape[1]
  by_position = dict(zip(at.tolist(), values.tolist(), strict=True))
  for i in np.argsort(-values, kind='stable'):
    row, position = divmod(int(at[i]), length)
    document = firings.documents[row, position]
    if document in seen:
      continue
    seen.add(document)
    near = range(max(0, position - window), min(length, position + window + 1))
    same = [p for p in near if firings.documents[row, p] == document]
    same = [p for p in same if firings.rows[row, p] != packing.PAD]
    examples.append(
        Example(
            float(values[i]),
            model.pieces(firings.rows[row, same]),
            np.array([by_position.get(row * length + p, 0.0) for p in same]),
            same.index(position),
        )
    )
    if len(examples) == k:
      break
  return examples


def _top_tokens(firings, at, values, model, k) -> list[tuple[str, float, int]]:
  """Returns the tokens with the largest mean value."""
  ids = firings.rows.reshape(-1)[at]
  distinct, inverse = np.unique(ids, return_inverse=True)
  counts = np.bincount(inverse, minlength=len(distinct))
  means = np.bincount(inverse, values, len(distinct)) / np.maximum(counts, 1)
  order = np.argsort(-means, kind='stable')[:k]
  return [
      (model.tokenizer.piece(distinct[i]), float(means[i]), int(counts[i]))
      for i in order
  ]


def _logits(
    model: language_model_lib.LanguageModel, sae: Dictionary, index: int, k: int
):
  """Returns the tokens whose logits the decoder row raises and lowers most."""
  row = logit_effects.written(model.model, sae.reads, sae.W_dec[index][None])[0]
  effects = logit_effects.unembedding(model.model) @ row
  # Rows of the embedding beyond the tokenizer's pieces are no tokens.
  effects = effects[: model.tokenizer.vocab_size]
  order = np.argsort(-effects, kind='stable')

  def named(ids):
    return [(model.tokenizer.piece(i), float(effects[i])) for i in ids]

  return named(order[:k]), named(order[::-1][:k])


def _neighbours(sae: Dictionary, index: int, k: int) -> list[tuple[int, float]]:
  """Returns the latents of the SAE with the nearest decoder rows."""
  norms = np.linalg.norm(sae.W_dec, axis=1)
  scale = np.maximum(norms * norms[index], np.finfo(np.float32).tiny)
  cosines = sae.W_dec @ sae.W_dec[index] / scale
  cosines[index] = -np.inf
  order = np.argsort(-cosines, kind='stable')[: min(k, sae.width - 1)]
  return [(int(i), float(cosines[i])) for i in order]


def _list(tokens: list[tuple[str, float]]) -> str:
  return ', '.join(f'{piece!r} {effect:+.2f}' for piece, effect in tokens)
