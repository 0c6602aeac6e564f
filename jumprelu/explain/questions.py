"""Questions about a latent, made from held-out windows."""

import functools
from typing import NamedTuple

import numpy as np

from jumprelu import explain
from jumprelu.explain import windows as windows_lib


class Item(NamedTuple):
  """A window of a question.

  Attributes:
    index: The number of the window among the held-out ones.
    marks: The marked tokens, as indices in the window.
  """

  index: int
  marks: tuple[int, ...] = ()


class Question(NamedTuple):
  """Windows, and the answer that the activations give.

  Attributes:
    kind: The kind of question.
    items: The windows.
    truth: Of detection and fuzzing, 1 or 0 for each item; of an intruder
      question, the number of the intruder, from 1; of simulation, the activation
      at each token of the item.
  """

  kind: str
  items: tuple[Item, ...]
  truth: tuple[float | int, ...]


def make(
    held_out: windows_lib.Windows, *, latent: int, config: explain.Config
) -> list[Question]:
  """Returns all questions about a latent.

  The strongest examples are left out: they would be more than their share of
  the activations. Questions of a kind for which the windows do not suffice are
  left out too.

  Args:
    held_out: The held-out windows of the latent.
    latent: The number of the latent, which varies the random draws.
    config: The config.
  """
  firing = held_out.fires
  text = held_out.window[held_out.is_text]
  usable = np.bincount(text, minlength=held_out.count) > 0
  usable &= held_out.kinds != windows_lib.STRONGEST
  active = np.flatnonzero(usable & firing)
  silent = np.flatnonzero(usable & ~firing)
  makers = {
      'detection': _detection,
      'fuzzing': _fuzzing,
      'intruder': _intruder,
      'simulation': _simulation,
  }
  questions = []
  for number, kind in enumerate(explain.KINDS):
    if kind in config.kinds:
      rng = np.random.default_rng([config.seed, latent, number])
      questions += makers[kind](held_out, active, silent, rng, config)
  return questions


def _detection(held_out, active, silent, rng, config) -> list[Question]:
  pairs = [
      (Item(int(i)), truth)
      for truth, pool in ((1, active), (0, silent))
      for i in rng.permutation(pool)[: config.windows]
  ]
  return _grouped('detection', pairs, rng, config)


def _fuzzing(held_out, active, silent, rng, config) -> list[Question]:
  """Marks firings in half of the windows, and as many other tokens in the rest.

  All windows have firings, so that the texts alone do not answer the question.
  """
  pairs = []
  for i in rng.permutation(active)[: config.windows]:
    truth = 1 - len(pairs) % 2
    if marks := _marks(held_out, int(i), bool(truth), rng):
      pairs.append((Item(int(i), marks), truth))
  return _grouped('fuzzing', pairs, rng, config)


def _marks(held_out, index: int, right: bool, rng) -> tuple[int, ...]:
  """Returns random tokens on which the latent fires, or does not."""
  span = held_out.span(index)
  fires = held_out.values[span] > 0
  text = held_out.is_text[span]
  pools = [(text & fires).nonzero()[0], (text & ~fires).nonzero()[0]]
  # Both answers have the same number of marks.
  count = min(map(len, pools))
  chosen = rng.permutation(pools[0] if right else pools[1])[:count]
  return tuple(sorted(chosen.tolist()))


def _grouped(kind: str, pairs, rng, config) -> list[Question]:
  order = rng.permutation(len(pairs))
  size = config.per_prompt
  groups = [order[i : i + size] for i in range(0, len(order), size)]
  return [
      Question(
          kind,
          tuple(pairs[i][0] for i in group),
          tuple(pairs[i][1] for i in group),
      )
      for group in groups
  ]


def _intruder(held_out, active, silent, rng, config) -> list[Question]:
  """Returns questions with four windows that fire, and one that does not.

  Marks are the tokens that fire, and as many random ones in the intruder.
  """
  others = explain.CHOICES - 1
  if len(active) < others or not len(silent):
    return []

  @functools.cache
  def firings(index):
    return tuple(
        (held_out.values[held_out.span(index)] > 0).nonzero()[0].tolist()
    )

  questions = []
  for _ in range(config.trials):
    chosen = rng.permutation(active)[:others].tolist()
    items = [Item(i, firings(i)) for i in chosen]
    index = int(rng.choice(silent))
    pool = held_out.is_text[held_out.span(index)].nonzero()[0]
    count = min(len(pool), round(sum(len(x.marks) for x in items) / others))
    marks = sorted(rng.permutation(pool)[: max(1, count)].tolist())
    place = int(rng.integers(explain.CHOICES))
    items.insert(place, Item(index, tuple(marks)))
    questions.append(Question('intruder', tuple(items), (place + 1,)))
  return questions


def _simulation(held_out, active, silent, rng, config) -> list[Question]:
  chosen = rng.permutation(np.concatenate([active, silent]))
  return [
      Question(
          'simulation',
          (Item(int(i)),),
          tuple(held_out.values[held_out.span(int(i))].tolist()),
      )
      for i in chosen[: config.simulated]
  ]
