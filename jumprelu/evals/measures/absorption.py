"""Absorption: words whose feature the feature's own latents leave out.

A latent for "starts with s" may be silent on a few words because latents of
those words have taken the letter's direction in ("A is for Absorption", Chanin
et al., arXiv 2409.14507; SAEBench, arXiv 2503.09532, whose definitions and
thresholds these are). For each feature:

* A probe on the target activations, at the words of a vocabulary in prompts
  that ask for first letters, gives the feature's direction d.
* The main latents are those of a k-sparse probe: one, and the next as long as
  it raises F1 by more than 0.03. More than one: the feature has split.
* On test words with the feature that the probe knows, with a = x . d, m the
  main latents' part of it and b that of the up to three other latents that have
  the largest parts and a cosine with d of 0.1 or more,

    fraction = 0 if m >= a or b < 0.4 a; 1 if m <= 0; else r / (r + m),

  r = min(b, a - m). Absorbed in full: the main latents are silent, and the one
  latent with the largest part has 0.4 a or more and a cosine of 0.025 or more.

Where the probe's F1 on test words is below 0.5 the activations do not know the
feature, and there is nothing to absorb: it is in the table, without a fraction,
and not in the means. Small models do not know first letters. So forms of words,
which they know, are measured besides (`spelling.FORMS`, the columns that begin
with absorption_form): whether a word follows a space, has a capital, or is all
capitals.

What differs from SAEBench: that threshold, and the forms; k-sparse probes take
latents by pursuit (`probe`), not by an L1 probe's weights, and their F1 is that
of the training words, since a small vocabulary has few of a letter; words are
split by spelling; sites other than the residual stream are measured too.
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
# Latents of a feature that are looked at: those whose means differ most.
_CANDIDATES = 64
# A feature is measured if so many words with it are on each side.
_MIN_TRAIN, _MIN_TEST = 8, 4
# Below this a probe does not know a feature.
_MIN_F1 = 0.5
# Words that are encoded in a row.
_ROW = 128


class _Rows(NamedTuple):
  """Words laid out in rows of activations; the last row is filled up."""

  count: int

  def fold(self, x: Any) -> np.ndarray:
    """Lays out what belongs to the words."""
    x = np.asarray(x)
    extra = -self.count % _ROW
    x = np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, _ROW, *x.shape[1:])

  def unfold(self, x: Any) -> np.ndarray:
    """Returns one value, or row of values, a word."""
    x = np.asarray(x)
    return x.reshape(-1, *x.shape[2:])[: self.count]


def _f1(guesses, labels):
  words = np.arange(len(labels))
  return probe.confusion(guesses, labels, words).estimate(*probe.F1)[0]


class _Feature(NamedTuple):
  """What a probe on the activations knows of a feature."""

  name: str
  labels: np.ndarray
  direction: np.ndarray
  f1: float
  # Numbers of the test words with the feature that the probe tells.
  known: np.ndarray

  @property
  def counted(self) -> bool:
    """Returns whether there is something to absorb."""
    return self.f1 >= _MIN_F1 and len(self.known) > 0


def _features(targets, words) -> list[_Feature]:
  """Fits a probe for each feature that has enough words."""
  found = []
  train, test = ~words.test, words.test
  for name, labels in zip(words.features, words.labels.T, strict=True):
    if (labels & train).sum() < _MIN_TRAIN or (labels & test).sum() < _MIN_TEST:
      continue
    fitted = probe.fit(targets[train], labels[train])
    guesses = fitted.logits(targets) > 0
    direction = fitted.weights / (np.linalg.norm(fitted.weights) or 1.0)
    f1 = _f1(guesses[test], labels[test])
    known = np.flatnonzero(labels & test & guesses)
    found.append(_Feature(name, labels, direction, f1, known))
  return found


def main_latents(
    latents: Num[np.ndarray, 'words candidates'],
    labels: Bool[np.ndarray, ' words'],
) -> tuple[list[int], float]:
  """Returns the latents that tell a label, and their probe's F1.

  The first is always taken, another only if F1 rises by more than 0.03.
  """
  chosen: list[int] = []
  best, logits = -np.inf, np.zeros(len(labels))
  while len(chosen) < min(_MAX_MAIN, latents.shape[1]):
    following = probe.pursue(latents, labels, logits)
    if following is None or following in chosen:
      break
    some = latents[:, [*chosen, following]]
    logits = probe.fit(some, labels).logits(some)
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
  found = []
  for own, known in zip(ranks, labels.T, strict=True):
    some = values[~words.test][:, np.searchsorted(columns, own)]
    chosen, f1 = main_latents(some, known[~words.test])
    found.append((own[chosen], f1))
  return found


def _parts(member, activations, features, main, *, mesh):
  """Returns the parts of the known words of the features, one after another."""
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
  parts = absorbed.take_apart(
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
  """Returns a member's rows, a feature each."""
  member, mesh = context.members[i], context.text.mesh
  found = _main(member, activations[member.source], features, words, mesh=mesh)
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
      for feature, (latents, f1) in zip(features, found, strict=True)
  ]
  counted = [n for n, feature in enumerate(features) if feature.counted]
  if counted:
    parts, number = _parts(
        member,
        activations,
        [features[n] for n in counted],
        [found[n][0] for n in counted],
        mesh=mesh,
    )
    fraction, full = parts.fraction(), parts.full()
    for n, row in enumerate(counted):
      table[row]['fraction'] = fraction[number == n].mean()
      table[row]['full_rate'] = full[number == n].mean()
  return table


def _columns(table: list[results.Row]) -> dict[str, Any]:
  """Returns a member's means over letters, and over forms, that are known."""
  columns: dict[str, Any] = {}
  for kind, names in (('', spelling.LETTERS), ('form_', spelling.FORMS)):
    rows = [row for row in table if row['feature'] in names]
    some = [row for row in rows if np.isfinite(row['fraction'])]
    for name in ('fraction', 'full_rate', 'split_latents', 'main_f1'):
      columns[f'absorption_{kind}{name}'] = _mean([row[name] for row in some])
    fractions = [row['fraction'] for row in some]
    spread = np.std(fractions, ddof=1) if len(some) > 1 else np.nan
    columns |= {
        f'absorption_{kind}fraction_stderr': spread / np.sqrt(len(some) or 1),
        f'absorption_{kind}probe_f1': _mean([row['probe_f1'] for row in rows]),
        f'absorption_{kind}known': len(some),
        f'absorption_{kind}words': sum(row['words_known'] for row in some),
    }
  return columns


def _mean(values):
  """Returns the mean; NaN of nothing."""
  return float(metrics.ratio(np.sum(values), len(values)))


def of_words(
    context: context_lib.Context, words: spelling.Words
) -> context_lib.Measured:
  """Measures all members on these words."""
  activations, keep = spelling.activations(context, words)
  activations = {tap: x[keep] for tap, x in activations.items()}
  words = words.only(keep)
  targets = {member.target for member in context.members}
  features = {tap: _features(activations[tap], words) for tap in targets}
  if not all(features.values()):
    raise errors.UserError(
        'absorption: no feature has enough words; raise'
        f' measure.absorption.words={len(words.words)}'
    )
  found = [
      _of_member(context, i, activations, features[member.target], words)
      for i, member in enumerate(context.members)
  ]
  return context_lib.Measured(
      list(map(_columns, found)), [row for rows in found for row in rows]
  )


def measure(context: context_lib.Context) -> context_lib.Measured:
  """Measures all members on the words of the model's vocabulary."""
  config = context.settings.absorption
  words = spelling.make_words(
      labelled.layout_of(context), words=config.words, shots=config.shots
  )
  return of_words(context, words)
