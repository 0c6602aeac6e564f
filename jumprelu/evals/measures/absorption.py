"""Absorption: words whose feature is represented by latents other than its own.

A latent for "starts with s" may be silent on a few words because latents for
those words also contain the letter's direction ("A is for Absorption", Chanin
et al., arXiv 2409.14507). Definitions and thresholds are those of SAEBench
(arXiv 2503.09532). A feature is a property of words, such as a first letter.
For each feature:

* A probe is fitted to the target activations x at words of the vocabulary, in
  prompts that ask for first letters. Its weights, scaled to norm 1, are the
  feature's direction d.
* The main latents are those of a k-sparse probe: the best latent, and further
  ones while each raises F1 by more than 0.03. A feature with more than one main
  latent has split.
* The fraction is computed on the test words that have the feature and that the
  probe classifies correctly. For a word, let a = x . d, let m be the sum of the
  main latents' components along d, and let b be the sum of the components of up
  to three other latents. These have the largest positive components among
  latents whose decoder rows have a cosine with d of at least 0.1. With
  r = min(b, a - m),

    fraction = 0 if a <= 0, m >= a or b < 0.4 a; else 1 if m <= 0;
               else r / (r + m).

* A word is absorbed in full if a > 0, the main latents are silent, and the
  latent with the largest component along d has a component of at least 0.4 a
  and a cosine of at least 0.025.

If the probe's F1 on test words is below 0.5, the activations do not represent
the feature, so nothing can be absorbed. Such a feature is in the table without
a fraction, and a member's means leave it out, except that of the probe's F1.
Features with too few words are not in the table. Small models do not represent
first letters, but they represent forms of words: whether a word follows a
space, starts with a capital, or is all capitals. These forms (`spelling.FORMS`)
have columns that start with absorption_form.

Differences from SAEBench: the F1 threshold and the forms are additions. The
latents of k-sparse probes are chosen by pursuit (`probe`), not by the weights
of an L1 probe. F1 of k-sparse probes is computed on training words, because a
small vocabulary has few words with a letter. A hash of the spelling in lower
case decides whether a word is in the train or the test set. Sites other than
the residual stream are measured too.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, metrics
from jumprelu.array_typing import Bool, Num
from jumprelu.evals import results
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import (
    absorbed,
    examples,
    labelled,
    probe,
    spelling,
)
from jumprelu.evals.measures import context as context_lib

_MAX_MAIN = 10
_F1_JUMP = 0.03
# Number of candidates for main latents: those with the largest mean on words
# with the feature, minus the mean on other words.
_CANDIDATES = 64
# Minimum numbers of words with a feature, in the train and test sets.
_MIN_TRAIN, _MIN_TEST = 8, 4
# With a lower F1 on test words, the activations do not represent a feature.
_MIN_F1 = 0.5
# Words per row of activations.
_ROW = 128


class _Rows(NamedTuple):
  """Layout of words in rows of activations; the last row is padded."""

  count: int

  def fold(self, x: Any) -> np.ndarray:
    """Returns values by word [words, ...] in rows [rows, 128, ...]."""
    x = np.asarray(x)
    extra = -self.count % _ROW
    x = np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, _ROW, *x.shape[1:])

  def unfold(self, x: Any) -> np.ndarray:
    """Returns values in rows by word [words, ...], without padding."""
    x = np.asarray(x)
    return x.reshape(-1, *x.shape[2:])[: self.count]


def _f1(guesses, labels):
  words = np.arange(len(labels))
  return probe.confusion(guesses, labels, words).estimate(*probe.F1)[0]


class _Feature(NamedTuple):
  """A feature, and the results of its probe on the activations."""

  name: str
  labels: np.ndarray
  direction: np.ndarray
  f1: float
  # Indices of the test words that have the feature and that the probe
  # classifies correctly.
  known: np.ndarray

  @property
  def counted(self) -> bool:
    """Returns whether the activations represent the feature."""
    return self.f1 >= _MIN_F1 and len(self.known) > 0


def _features(targets, words) -> list[_Feature]:
  """Returns the features with enough words, each with a fitted probe."""
  features = []
  train, test = ~words.test, words.test
  for name, labels in zip(words.features, words.labels.T, strict=True):
    if (labels & train).sum() < _MIN_TRAIN or (labels & test).sum() < _MIN_TEST:
      continue
    fitted = probe.fit(targets[train], labels[train])
    guesses = fitted.logits(targets) > 0
    direction = fitted.weights / (np.linalg.norm(fitted.weights) or 1.0)
    f1 = _f1(guesses[test], labels[test])
    known = np.flatnonzero(labels & test & guesses)
    features.append(_Feature(name, labels, direction, f1, known))
  return features


def main_latents(
    latents: Num[np.ndarray, 'words candidates'],
    labels: Bool[np.ndarray, ' words'],
) -> tuple[list[int], float]:
  """Returns the main latents of a label, and their probe's F1.

  A latent after the first is chosen only if it raises F1 by more than 0.03. If
  no latent is evidence for the label, there are none, and F1 is -inf.
  """
  chosen: list[int] = []
  best, logits = -np.inf, np.zeros(len(labels))
  while len(chosen) < min(_MAX_MAIN, latents.shape[1]):
    following = probe.pursue(latents, labels, logits)
    if following is None or following in chosen:
      break
    values = latents[:, [*chosen, following]]
    logits = probe.fit(values, labels).logits(values)
    f1 = _f1(logits > 0, labels)
    if f1 <= best + _F1_JUMP:
      break
    chosen, best = [*chosen, following], f1
  return chosen, best


def _main(member, activations, features, words, *, mesh):
  """Returns each feature's main latents and their probe's F1."""
  rows = _Rows(len(words.words))
  keep = rows.fold(np.ones(rows.count, bool))
  inputs = text_lib.place(rows.fold(activations), mesh, None, None, None)
  labels = np.stack([feature.labels for feature in features], 1)
  call = {'keep': keep, 'sae': member.sae, 'mesh': mesh}
  train = np.where(words.test[:, None], -1, labels).astype(np.int8)
  sums = examples.class_sums(member.params, inputs, rows.fold(train), **call)
  sums = jax.device_get(sums)
  ranks = np.argsort(-sums.difference(), 1, kind='stable')[:, :_CANDIDATES]
  columns = np.unique(ranks)
  padded = np.pad(columns, (0, ranks.size - len(columns)), mode='edge')
  values = rows.unfold(examples.gather(member.params, inputs, padded, **call))
  train_values, train_labels = values[~words.test], labels[~words.test]
  results_by_feature = []
  for candidates, known in zip(ranks, train_labels.T, strict=True):
    candidate_values = train_values[:, np.searchsorted(columns, candidates)]
    chosen, f1 = main_latents(candidate_values, known)
    results_by_feature.append((candidates[chosen], f1))
  return results_by_feature


def _parts(member, activations, features, main, *, mesh):
  """Returns the components of known words, and each word's feature index."""
  words = np.concatenate([feature.known for feature in features])
  number = np.repeat(
      np.arange(len(features)), [len(feature.known) for feature in features]
  )
  mask = np.zeros((len(features), member.sae.width), bool)
  for row, latents in zip(mask, main, strict=True):
    row[latents] = True
  rows = _Rows(len(words))
  inputs, targets = (
      text_lib.place(rows.fold(activations[tap][words]), mesh, None, None, None)
      for tap in (member.source, member.target)
  )
  parts = absorbed.decompose(
      member.params,
      inputs,
      targets,
      directions=np.asarray([x.direction for x in features], np.float32),
      main=mask,
      features=rows.fold(number),
      sae=member.sae,
      mesh=mesh,
  )
  parts = absorbed.Parts(*(rows.unfold(x).astype(np.float64) for x in parts))
  return parts, number


def _of_member(context, i, activations, features, words) -> list[results.Row]:
  """Returns a member's rows of the table, one per feature."""
  member, mesh = context.members[i], context.text.mesh
  main = _main(member, activations[member.source], features, words, mesh=mesh)
  table = [
      {
          'path': context.names[i],
          'feature': feature.name,
          'words': int(feature.labels.sum()),
          'probe_f1': feature.f1,
          'words_known': len(feature.known),
          'main_latents': ' '.join(map(str, latents)),
          'split_latents': len(latents),
          'main_f1': f1,
          'fraction': np.nan,
          'full_rate': np.nan,
      }
      for feature, (latents, f1) in zip(features, main, strict=True)
  ]
  counted = [n for n, feature in enumerate(features) if feature.counted]
  if counted:
    parts, number = _parts(
        member,
        activations,
        [features[n] for n in counted],
        [main[n][0] for n in counted],
        mesh=mesh,
    )
    fraction, full = parts.fraction(), parts.full()
    for n, row in enumerate(counted):
      table[row]['fraction'] = fraction[number == n].mean()
      table[row]['full_rate'] = full[number == n].mean()
  return table


def _columns(table: list[results.Row]) -> dict[str, Any]:
  """Returns a member's means over letters, and over forms.

  Features that the activations do not represent enter `probe_f1` only.
  """
  columns: dict[str, Any] = {}
  for kind, names in (('', spelling.LETTERS), ('form_', spelling.FORMS)):
    rows = [row for row in table if row['feature'] in names]
    known = [row for row in rows if np.isfinite(row['fraction'])]
    for name in ('fraction', 'full_rate', 'split_latents', 'main_f1'):
      columns[f'absorption_{kind}{name}'] = _mean([row[name] for row in known])
    fractions = [row['fraction'] for row in known]
    spread = np.std(fractions, ddof=1) if len(known) > 1 else np.nan
    columns |= {
        f'absorption_{kind}fraction_stderr': spread / np.sqrt(len(known) or 1),
        f'absorption_{kind}probe_f1': _mean([row['probe_f1'] for row in rows]),
        f'absorption_{kind}known': len(known),
        f'absorption_{kind}words': sum(row['words_known'] for row in known),
    }
  return columns


def _mean(values):
  """Returns the mean, or NaN if there are no values."""
  return float(metrics.ratio(np.sum(values), len(values)))


def of_words(
    context: context_lib.Context, words: spelling.Words
) -> context_lib.Measured:
  """Measures all members on these words.

  Raises:
    UserError: if a target has no feature with enough words.
  """
  activations, keep = spelling.activations(context, words)
  activations = {tap: x[keep] for tap, x in activations.items()}
  words = words.select(keep)
  targets = {member.target for member in context.members}
  features = {tap: _features(activations[tap], words) for tap in targets}
  if not all(features.values()):
    raise errors.UserError(
        'absorption: no feature has enough words; raise'
        f' measure.absorption.words={len(words.words)}'
    )
  tables = [
      _of_member(context, i, activations, features[member.target], words)
      for i, member in enumerate(context.members)
  ]
  return context_lib.Measured(
      list(map(_columns, tables)), [row for table in tables for row in table]
  )


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the words of the model's vocabulary."""
  config = context.settings.absorption
  words = spelling.make_words(
      labelled.layout_of(context), words=config.words, shots=config.shots
  )
  return of_words(context, words)
