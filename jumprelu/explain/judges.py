"""Answers of rules to questions, and scores of answers."""

from collections.abc import Mapping, Sequence

import numpy as np

from jumprelu import explain
from jumprelu.explain import questions as questions_lib
from jumprelu.explain import rules, scoring
from jumprelu.explain import windows as windows_lib

# The numbers of an answer, in the form of the question's truth; None if it
# could not be read.
Answer = Sequence[float | int] | None


def answer_by_rule(
    questions: Sequence[questions_lib.Question],
    prediction: rules.Prediction,
    *,
    held_out: windows_lib.Windows,
    seed: int,
) -> list[Answer]:
  """Returns the answers that a rule implies.

  It fires in a text if any clause matches, and on marked tokens if it matches
  at least half of them. The intruder is the text with the smallest share of
  matched marks; of equal ones, a random one.

  Args:
    questions: The questions.
    prediction: The prediction of the rule.
    held_out: The windows of the questions.
    seed: The seed of random choices.
  """
  matched = prediction.matched.tolist()
  starts = held_out.starts.tolist()
  rng = np.random.default_rng(seed)

  def any_match(item):
    return any(matched[starts[item.index] : starts[item.index + 1]])

  def share(item):
    start = starts[item.index]
    return sum(matched[start + mark] for mark in item.marks) / len(item.marks)

  answers: list[Answer] = []
  for question in questions:
    items = question.items
    if question.kind == 'detection':
      answers.append([int(any_match(item)) for item in items])
    elif question.kind == 'fuzzing':
      answers.append([int(share(item) >= 0.5) for item in items])
    elif question.kind == 'intruder':
      shares = np.array([share(item) for item in items])
      answers.append(
          [int(rng.choice(np.flatnonzero(shares == shares.min()))) + 1]
      )
    else:
      values = prediction.values[held_out.span(items[0].index)]
      answers.append(values.tolist())
  return answers


def score(
    questions: Sequence[questions_lib.Question],
    answers: Sequence[Answer],
    *,
    seed: int,
) -> Mapping[str, scoring.Score]:
  """Returns the score of each kind of question.

  Args:
    questions: The questions.
    answers: The answer to each.
    seed: The seed of the bootstrap.
  """
  pairs = list(zip(questions, answers, strict=True))
  scores = {}
  for kind in explain.KINDS:
    of_kind = [(q, a) for q, a in pairs if q.kind == kind]
    truths = [q.truth for q, _ in of_kind]
    if kind == 'simulation':
      read = [None if a is None else np.asarray(a) for _, a in of_kind]
      values = [np.asarray(t) for t in truths]
      scores[kind] = scoring.correlation(values, read, seed=seed)
      continue
    answered = [
        (t, None if a is None else a[i])
        for q, a in of_kind
        for i, t in enumerate(q.truth)
    ]
    if kind == 'intruder':
      right = [None if a is None else int(a == t) for t, a in answered]
      scores[kind] = scoring.proportion(right)
    else:
      scores[kind] = scoring.balanced_accuracy(
          [int(t) for t, _ in answered],
          [None if a is None else int(a) for _, a in answered],
      )
  return scores
