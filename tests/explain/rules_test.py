"""Rules are those that were planted, and apply to other documents."""

import numpy as np
import pytest

from jumprelu import explain
from jumprelu.explain import judges, questions, rules, windows
from tests.explain import planted

CONFIG = explain.Config()


@pytest.fixture
def member(folder):
  return windows.Member(folder, planted.MEMBER)


def _fit(member, latent, vocabulary, **changes):
  split = windows.split(member.windows(latent), seed=0)
  rule = rules.fit(
      rules.View.of(split.training),
      vocabulary,
      promoted=member.promoted(latent),
      config=explain.Config(**changes),
  )
  return rule, split


@pytest.mark.parametrize(
    'latent, text',
    [
        (planted.TOKEN_IF, 'fires on " if"'),
        (planted.AFTER_IMPORT, 'fires after " import"'),
        (planted.DIGITS, 'fires on digits'),
        (planted.EARLY, 'fires on the first 4 positions of a document'),
        (planted.BEFORE_NOT, 'fires before " not"'),
        (planted.NEVER, ''),
    ],
)
def test_planted_rules_are_recovered(member, vocabulary, latent, text):
  rule, _ = _fit(member, latent, vocabulary)
  assert rules.describe(rule, vocabulary) == text


def test_alternatives_are_added_while_they_help(member, vocabulary):
  rule, _ = _fit(member, planted.THREE, vocabulary)
  assert {clause.tokens for clause in rule} == {
      (planted.TOKEN[' the'],),
      (planted.TOKEN[' of'],),
      (planted.TOKEN[' a'],),
  }
  rule, _ = _fit(member, planted.THREE, vocabulary, clauses=1)
  assert len(rule) == 1


@pytest.mark.parametrize(
    'latent, least, most',
    [
        (planted.TOKEN_IF, 1, 1),
        (planted.DIGITS, 1, 1),
        (planted.BEFORE_NOT, 0.9, 1),
        (planted.NOISE, 0, 0.75),
    ],
)
def test_rules_are_scored_on_other_documents(
    member, vocabulary, latent, least, most
):
  rule, split = _fit(member, latent, vocabulary)
  asked = questions.make(split.held_out, latent=latent, config=CONFIG)
  view = rules.View.of(split.held_out)
  answers = judges.answer_by_rule(
      asked,
      rules.predict(rule, view, vocabulary),
      held_out=split.held_out,
      seed=0,
  )
  scores = judges.score(asked, answers, seed=0)
  for kind in ('detection', 'fuzzing'):
    assert least <= scores[kind].score <= most, kind


def test_the_rule_of_a_token_is_the_best_token(member, vocabulary):
  _, split = _fit(member, planted.TOKEN_IF, vocabulary)
  (clause,) = rules.fit_token(rules.View.of(split.training))
  assert clause.tokens == (planted.TOKEN[' if'],)
  _, split = _fit(member, planted.NEVER, vocabulary)
  assert rules.fit_token(rules.View.of(split.training)) == ()


def test_no_window_gives_the_empty_rule(vocabulary):
  none = np.zeros(0, int)
  part = windows.Windows(
      np.zeros(1, int), none, np.zeros(0, np.float32), none, none, none
  )
  view = rules.View.of(part)
  assert rules.fit(view, vocabulary, config=CONFIG) == ()
  assert rules.fit_token(view) == ()
  assert not len(rules.predict((), view, vocabulary).matched)


def test_predictions_are_the_mean_activation_of_the_clause(member, vocabulary):
  rule, split = _fit(member, planted.TOKEN_IF, vocabulary)
  part = split.training
  fires = part.values > 0
  predicted = rules.predict(rule, rules.View.of(part), vocabulary)
  np.testing.assert_array_equal(predicted.matched, fires)
  np.testing.assert_array_equal(predicted.values > 0, fires)
  assert predicted.values[fires] == pytest.approx(
      part.values[fires].mean(), rel=1e-3
  )


def test_n_grams_do_not_cross_windows(vocabulary):
  word = planted.TOKEN[' import']
  part = windows.Windows(
      np.array([0, 2, 4]),
      np.array([5, word, 6, 7]),
      np.zeros(4, np.float32),
      np.zeros(2, int),
      np.zeros(2, int),
      np.zeros(2, int),
  )
  clause = rules.Clause(rules.NGRAM, tokens=(word, rules.ANY))
  view = rules.View.of(part)
  assert not rules.matches(clause, view, vocabulary)[2]


def test_rules_survive_json(member, vocabulary):
  rule, _ = _fit(member, planted.THREE, vocabulary)
  assert rules.from_json(rules.to_json(rule)) == rule


def test_classes_match_whole_pieces(vocabulary):
  tokens = np.arange(len(planted.PIECES))
  digits = vocabulary.in_class('digits', tokens)
  assert [planted.PIECES[i] for i in np.flatnonzero(digits)] == [
      '1', '2', '3', ' 4',
  ]  # fmt: skip
