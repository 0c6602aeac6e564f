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
    self._classes = np.array(matches, bool)

  def in_classes(
      self, tokens: Int[np.ndarray, ' window_tokens']
  ) -> Bool[np.ndarray, 'classes window_tokens']:
    """Returns which tokens are in each class."""
    return self._classes[:, tokens]

  def in_class(
      self, name: str, tokens: Int[np.ndarray, ' window_tokens']
  ) -> Bool[np.ndarray, ' window_tokens']:
    """Returns which tokens are in a class."""
    return self._classes[list(CLASSES).index(name), tokens]


class View(NamedTuple):
  """The tokens of windows with their surroundings; -2 outside of the window."""

  tokens: Int[np.ndarray, ' window_tokens']
  before: Int[np.ndarray, ' window_tokens']
  before_that: Int[np.ndarray, ' window_tokens']
  after: Int[np.ndarray, ' window_tokens']
  positions: Int[np.ndarray, ' window_tokens']
  is_text: Bool[np.ndarray, ' window_tokens']
  # The number of each token's window, and the latent at each token.
  window: Int[np.ndarray, ' window_tokens']
  values: Float[np.ndarray, ' window_tokens']

  @classmethod
  def of(cls, windows: windows_lib.Windows) -> 'View':
    """Returns the view of windows."""
    window, tokens = windows.window, windows.tokens
    shift = windows.offsets - windows.starts[:-1]
    same = window[1:] == window[:-1]
    before = np.full_like(tokens, -2)
    before[1:][same] = tokens[:-1][same]
    before_that = np.full_like(tokens, -2)
    same_of_three = same[1:] & same[:-1]
    before_that[2:][same_of_three] = tokens[:-2][same_of_three]
    after = np.full_like(tokens, -2)
    after[:-1][same] = tokens[1:][same]
    return cls(
        tokens,
        before,
        before_that,
        after,
        np.arange(len(window)) + shift[window],
        windows.is_text,
        window,
        windows.values,
    )

  @property
  def fires(self) -> Bool[np.ndarray, ' window_tokens']:
    """Whether the latent fires on each token, if the token is text."""
    return (self.values > 0) & self.is_text


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


class Prediction(NamedTuple):
  """The tokens on which a rule matches, and the activations it predicts."""

  matched: Bool[np.ndarray, ' window_tokens']
  values: Float[np.ndarray, ' window_tokens']


def predict(rule: Rule, view: View, vocabulary: Vocabulary) -> Prediction:
  """Returns the matches of a rule; the activation is 0 without a match."""
  values = np.zeros(len(view.tokens))
  any_matched = np.zeros(len(view.tokens), bool)
  for clause in rule:
    matched = matches(clause, view, vocabulary)
    values[matched] = np.maximum(values[matched], clause.value)
    any_matched |= matched
  return Prediction(any_matched, values)


def fit(
    view: View,
    vocabulary: Vocabulary,
    *,
    promoted: Sequence[int] = (),
    config: explain.Config,
) -> Rule:
  """Returns the rule of a latent; () if no clause matches two windows.

  Args:
    view: The view of the windows of the latent.
    vocabulary: The vocabulary.
    promoted: The tokens that the latent promotes.
    config: The config.
  """
  return _greedy(_candidates(view, vocabulary, promoted), view, config)


def fit_token(view: View) -> Rule:
  """Returns the rule that consists of the best single token."""
  candidates = _ngrams(view, (True, False, False))
  return _greedy(candidates, view, explain.Config(clauses=1, gain=0.0))


class _Candidates(NamedTuple):
  """Clauses among which those of a rule are chosen, and where each matches."""

  clauses: list[Clause]
  matched: Bool[np.ndarray, 'clauses window_tokens']


def _candidates(
    view: View, vocabulary: Vocabulary, promoted: Sequence[int]
) -> _Candidates:
  """Returns all candidates for a rule."""
  shapes = (
      (True, False, False),
      (True, True, False),
      (True, True, True),
      (False, True, False),
      (False, True, True),
  )
  parts = [_ngrams(view, shape) for shape in shapes]
  clauses = [clause for part in parts for clause in part.clauses]
  clauses += [Clause(CLASS, name=name) for name in CLASSES]
  clauses += [Clause(POSITION, limit=limit) for limit in _POSITIONS]
  rows = [
      *(part.matched for part in parts),
      vocabulary.in_classes(view.tokens) & view.is_text,
      (view.positions < np.array(_POSITIONS)[:, None]) & view.is_text,
  ]
  if len(promoted):
    clause = Clause(PROMOTED, tokens=tuple(map(int, promoted)))
    clauses.append(clause)
    rows.append(matches(clause, view, vocabulary)[None])
  return _Candidates(clauses, np.concatenate(rows))


def _ngrams(view: View, shape: tuple[bool, ...]) -> _Candidates:
  """Returns the most frequent n-grams at firings.

  Args:
    view: The tokens.
    shape: Whether the n-gram names the token, that before it, and that before
      that one.
  """
  columns = (view.tokens, view.before, view.before_that)
  fires = np.flatnonzero(view.fires)
  at_firings = [
      c[fires] for c, named in zip(columns, shape, strict=True) if named
  ]
  whole = np.logical_and.reduce([column != -2 for column in at_firings])
  # The order of these numbers is that of the n-grams.
  keys = np.zeros(np.count_nonzero(whole), np.int64)
  base = int(view.tokens.max(initial=0)) + 1
  for column in at_firings:
    keys = keys * base + column[whole]
  _, first, counts = np.unique(keys, return_index=True, return_counts=True)
  best = np.argsort(-counts, kind='stable')[:_TRIED]
  best = first[best[counts[best] >= _SUPPORT]]
  matched = np.repeat(view.is_text[None], len(best), axis=0)
  length = 1 + max(i for i, named in enumerate(shape) if named)
  ids = np.full((len(best), length), ANY)
  places = fires[whole][best]
  for i, named in enumerate(shape):
    if named:
      ids[:, length - 1 - i] = columns[i][places]
      matched &= columns[i] == columns[i][places][:, None]
  clauses = [Clause(NGRAM, tokens=tuple(row)) for row in ids.tolist()]
  return _Candidates(clauses, matched)


def _greedy(
    candidates: _Candidates, view: View, config: explain.Config
) -> Rule:
  """Returns the clauses that raise F1 most, one after another."""
  fires = view.fires
  if not fires.any():
    return ()
  usable = _in_two_windows(candidates.matched & fires, view.window)
  if not len(usable):
    return ()
  matched = candidates.matched[usable]
  # Sums of products of 0 and 1, which float32 has exactly.
  numbers = matched.astype(np.float32)
  chosen, covered, best = [], np.zeros(len(fires), bool), 0.0
  for _ in range(config.clauses):
    new = np.stack([~covered, ~covered & fires], axis=1).astype(np.float32)
    total, right = (numbers @ new).astype(np.int64).T
    right += np.count_nonzero(covered & fires)
    total += np.count_nonzero(covered) + np.count_nonzero(fires)
    f1 = 2 * right / total
    i = int(f1.argmax())
    if f1[i] <= best or (chosen and f1[i] < best + config.gain):
      break
    best, covered = float(f1[i]), covered | matched[i]
    value = float(view.values[matched[i]].mean())
    clause = candidates.clauses[usable[i]]
    chosen.append(dataclasses.replace(clause, value=round(value, 4)))
  return tuple(chosen)


def _in_two_windows(hits, window) -> Int[np.ndarray, ' usable']:
  """Returns the rows of `hits` that are in `_SUPPORT` = 2 windows or more."""
  first = window[hits.argmax(axis=1)]
  last = window[::-1][hits[:, ::-1].argmax(axis=1)]
  # In a row without hits both are the ends of all windows.
  return np.flatnonzero((first < last) & hits.any(axis=1))


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
