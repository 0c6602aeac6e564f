"""Rules: explanations that a program can apply to text.

A rule is a list of clauses, and predicts an activation wherever a clause
matches. Clauses are chosen one after another, each the one that raises F1 most:
F1 of the rule's matches against the tokens on which the latent fires, in the
windows from which explanations are made.
"""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any, NamedTuple

import numpy as np

from jumprelu import explain
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.explain import windows as windows_lib

# In an n-gram, it matches any token.
ANY = -1
# Kinds of clauses.
NGRAM, CLASS, POSITION, PROMOTED = 'ngram', 'class', 'position', 'promoted'
# A clause must match this many firings, and as many windows with firings.
_SUPPORT = 2
# N-grams of each length that are tried, the most frequent ones.
_TRIED = 64
_POSITIONS = (2, 4, 8, 16, 32)

# Kinds of tokens: name -> regular expression, which matches the whole piece.
CLASSES = {
    'digits': r' ?\d+',
    'capitalised words': r' ?[A-Z][a-z]+',
    'words in capitals': r' ?[A-Z]{2,}',
    'starts of words': r' [A-Za-z]+',
    'lower-case pieces without a space before them': r'[a-z]+',
    'opening brackets': r'\s*[(\[{]+',
    'closing brackets': r'[)\]}]+[,:;.]*',
    'quotation marks': r'.*["\'`].*',
    'line breaks': r'\s*\n\s*',
    'spaces': r'[ \t]+',
    'operators': r' ?[-+*/%=<>!&|^~]+',
    'underscores': r'.*_.*',
    'punctuation': r'\s*[^\w\s]+',
    'full stops': r'.*\.',
    'pieces outside of ASCII': r'.*[^\x00-\x7f].*',
}


@dataclasses.dataclass(frozen=True)
class Clause:
  """A condition on a token and its surroundings.

  Attributes:
    kind: The kind of clause.
    tokens: Of an n-gram: the ids, the last for the token itself; ANY matches
      each; of promoted tokens: the ids that may follow.
    name: The name of the class of tokens.
    limit: The position in the document below which the clause matches.
    value: The mean activation where it matches.
  """

  kind: str
  tokens: tuple[int, ...] = ()
  name: str = ''
  limit: int = 0
  value: float = 0.0


Rule = tuple[Clause, ...]


class Vocabulary:
  """The pieces of all tokens, and the classes of tokens."""

  def __init__(self, pieces: Sequence[str]):
    self.pieces = list(pieces)
    patterns = [re.compile(text, re.DOTALL) for text in CLASSES.values()]
    matches = [
        [pattern.fullmatch(piece) is not None for piece in self.pieces]
        for pattern in patterns
    ]
    self._classes = dict(zip(CLASSES, np.array(matches, bool), strict=True))

  def in_class(
      self, name: str, tokens: Int[np.ndarray, ' window_tokens']
  ) -> Bool[np.ndarray, ' window_tokens']:
    """Returns which tokens are in a class."""
    return self._classes[name][tokens]


class View(NamedTuple):
  """The tokens of windows with their surroundings; -2 outside of the window."""

  tokens: Int[np.ndarray, ' window_tokens']
  before: Int[np.ndarray, ' window_tokens']
  before_that: Int[np.ndarray, ' window_tokens']
  after: Int[np.ndarray, ' window_tokens']
  positions: Int[np.ndarray, ' window_tokens']
  is_text: Bool[np.ndarray, ' window_tokens']

  @classmethod
  def of(cls, windows: windows_lib.Windows) -> 'View':
    """Returns the view of windows."""
    window = windows.window
    within = np.arange(len(window)) - windows.starts[:-1][window]
    left = windows.lengths[window] - within - 1

    def shifted(by):
      inside = within >= by if by > 0 else left >= -by
      return np.where(inside, np.roll(windows.tokens, by), -2)

    return cls(
        windows.tokens,
        shifted(1),
        shifted(2),
        shifted(-1),
        windows.offsets[window] + within,
        windows_lib.is_text(windows.tokens),
    )


def matches(
    clause: Clause, view: View, vocabulary: Vocabulary
) -> Bool[np.ndarray, ' window_tokens']:
  """Returns the tokens on which a clause matches."""
  if clause.kind == CLASS:
    matched = vocabulary.in_class(clause.name, view.tokens)
  elif clause.kind == POSITION:
    matched = view.positions < clause.limit
  elif clause.kind == PROMOTED:
    matched = np.isin(view.after, clause.tokens)
  else:
    columns = (view.tokens, view.before, view.before_that)
    matched = np.ones(len(view.tokens), bool)
    for column, token in zip(columns, reversed(clause.tokens), strict=False):
      if token != ANY:
        matched &= column == token
  return matched & view.is_text


def predict(
    rule: Rule, windows: windows_lib.Windows, vocabulary: Vocabulary
) -> Float[np.ndarray, ' window_tokens']:
  """Returns the predicted activation of each token; 0 without a match."""
  view = View.of(windows)
  values = np.zeros(len(view.tokens))
  for clause in rule:
    matched = matches(clause, view, vocabulary)
    values = np.where(matched, np.maximum(values, clause.value), values)
  return values


def fit(
    windows: windows_lib.Windows,
    vocabulary: Vocabulary,
    *,
    promoted: Sequence[int] = (),
    config: explain.Config,
) -> Rule:
  """Returns the rule of a latent; () if no clause matches two windows.

  Args:
    windows: The windows of the latent, with its activations.
    vocabulary: The vocabulary.
    promoted: The tokens that the latent promotes.
    config: The config.
  """
  view = View.of(windows)
  candidates = _candidates(windows, view, promoted)
  return _greedy(candidates, windows, view, vocabulary, config)


def fit_token(windows: windows_lib.Windows, vocabulary: Vocabulary) -> Rule:
  """Returns the rule that consists of the best single token."""
  view = View.of(windows)
  fires = (windows.values > 0) & view.is_text
  candidates = _ngrams(view, fires, (True, False, False))
  config = explain.Config(clauses=1, gain=0.0)
  return _greedy(candidates, windows, view, vocabulary, config)


def _candidates(windows, view: View, promoted: Sequence[int]) -> list[Clause]:
  """Returns the clauses among which those of the rule are chosen."""
  fires = (windows.values > 0) & view.is_text
  clauses = []
  for shape in (
      (True, False, False),
      (True, True, False),
      (True, True, True),
      (False, True, False),
      (False, True, True),
  ):
    clauses += _ngrams(view, fires, shape)
  clauses += [Clause(CLASS, name=name) for name in CLASSES]
  clauses += [Clause(POSITION, limit=limit) for limit in _POSITIONS]
  if len(promoted):
    clauses.append(Clause(PROMOTED, tokens=tuple(map(int, promoted))))
  return clauses


def _ngrams(view: View, fires, shape: tuple[bool, ...]) -> list[Clause]:
  """Returns the most frequent n-grams at firings.

  Args:
    view: The tokens.
    fires: Where the latent fires.
    shape: Whether the n-gram names the token, that before it, and that before
      that one.
  """
  columns = np.stack([view.tokens, view.before, view.before_that])[:, fires]
  columns = np.where(np.array(shape)[:, None], columns, ANY)
  columns = columns[:, (columns != -2).all(axis=0)]
  distinct, counts = np.unique(columns, axis=1, return_counts=True)
  best = np.argsort(-counts, kind='stable')[:_TRIED]
  best = best[counts[best] >= _SUPPORT]
  length = 1 + max(i for i, named in enumerate(shape) if named)
  return [
      Clause(NGRAM, tokens=tuple(distinct[:length, i][::-1].tolist()))
      for i in best
  ]


def _greedy(
    candidates: Sequence[Clause],
    windows: windows_lib.Windows,
    view: View,
    vocabulary: Vocabulary,
    config: explain.Config,
) -> Rule:
  """Returns the clauses that raise F1 most, one after another."""
  fires = (windows.values > 0) & view.is_text
  rows = [matches(clause, view, vocabulary) for clause in candidates]
  usable = [
      i
      for i, row in enumerate(rows)
      if len(np.unique(windows.window[row & fires])) >= _SUPPORT
  ]
  if not usable:
    return ()
  table = np.array([rows[i] for i in usable])
  chosen, covered, best = [], np.zeros(len(fires), bool), 0.0
  for _ in range(config.clauses):
    free = table & ~covered
    right = (free & fires).sum(axis=1) + (covered & fires).sum()
    matched = free.sum(axis=1) + covered.sum()
    f1 = 2 * right / (matched + fires.sum())
    i = int(f1.argmax())
    if f1[i] <= best or (chosen and f1[i] < best + config.gain):
      break
    best, covered = float(f1[i]), covered | table[i]
    value = float(windows.values[table[i]].mean())
    clause = candidates[usable[i]]
    chosen.append(dataclasses.replace(clause, value=round(value, 4)))
  return tuple(chosen)


def describe(rule: Rule, vocabulary: Vocabulary) -> str:
  """Returns a rule in words; '' for the empty rule."""
  quoted = [_quoted(c.tokens, vocabulary) for c in rule if _is_token(c)]
  parts = ['on ' + ', '.join(quoted)] if quoted else []
  parts += [_describe(c, vocabulary) for c in rule if not _is_token(c)]
  return 'fires ' + '; or '.join(parts) if parts else ''


def _is_token(clause: Clause) -> bool:
  return clause.kind == NGRAM and len(clause.tokens) == 1


def _quoted(tokens: Sequence[int], vocabulary: Vocabulary, by=' ') -> str:
  return by.join(
      json.dumps(vocabulary.pieces[token], ensure_ascii=False)
      for token in tokens
  )


def _describe(clause: Clause, vocabulary: Vocabulary) -> str:
  if clause.kind == CLASS:
    return f'on {clause.name}'
  if clause.kind == POSITION:
    return f'on the first {clause.limit} positions of a document'
  if clause.kind == PROMOTED:
    return 'before ' + _quoted(clause.tokens, vocabulary, ', ')
  *before, token = clause.tokens
  after = f'after {_quoted(before, vocabulary)}'
  if token == ANY:
    return after
  return f'on {_quoted([token], vocabulary)} {after}'


def to_json(rule: Rule) -> str:
  """Returns a rule as JSON, with the ids of its tokens."""
  return json.dumps([dataclasses.asdict(clause) for clause in rule])


def from_json(text: str) -> Rule:
  """Returns the rule of `to_json`."""
  parts: list[dict[str, Any]] = json.loads(text)
  return tuple(
      Clause(tokens=tuple(part.pop('tokens')), **part) for part in parts
  )
