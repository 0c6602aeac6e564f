"""Questions have the answers of the activations, on other documents."""

import numpy as np
import pytest

from jumprelu import explain
from jumprelu.explain import questions as questions_lib
from jumprelu.explain import windows
from tests.explain import planted

CONFIG = explain.Config()


@pytest.fixture
def split(folder):
  member = windows.Member(folder, planted.MEMBER)
  return windows.split(member.windows(planted.DIGITS), seed=0)


@pytest.fixture
def questions(split):
  return questions_lib.make(split.held_out, latent=1, config=CONFIG)


def _of(questions, kind):
  return [q for q in questions if q.kind == kind]


def test_windows_are_those_of_the_text(folder, tmp_path):
  tokens, latents = planted.write(tmp_path / 'again')
  member = windows.Member(folder, planted.MEMBER)
  length, count = tokens.shape[1], 0
  for latent in range(planted.WIDTH):
    part = member.windows(latent)
    for i in range(part.count):
      document = int(part.documents[i]) // length
      start = int(part.offsets[i])
      span = part.span(i)
      text = slice(start, start + span.stop - span.start)
      np.testing.assert_array_equal(part.tokens[span], tokens[document, text])
      np.testing.assert_array_equal(
          part.values[span], latents[document, text, latent]
      )
      count += 1
  assert count > 400


def test_no_document_is_in_both_halves(split):
  training, held_out = (set(part.documents.tolist()) for part in split)
  assert training and held_out and not training & held_out


def test_detection_has_the_truth_of_the_windows(split, questions):
  truths = []
  for question in _of(questions, 'detection'):
    for item, truth in zip(question.items, question.truth, strict=True):
      values = split.held_out.values[split.held_out.span(item.index)]
      assert truth == (values > 0).any()
      truths.append(truth)
  assert 0.2 < np.mean(truths) < 0.8 and len(truths) > 20


def test_marks_of_fuzzing_fire_or_do_not_in_windows_that_fire(split, questions):
  counts = {0: [], 1: []}
  for question in _of(questions, 'fuzzing'):
    for item, truth in zip(question.items, question.truth, strict=True):
      values = split.held_out.values[split.held_out.span(item.index)]
      assert values.any()
      assert all((values[list(item.marks)] > 0) == truth)
      counts[int(truth)].append(len(item.marks))
  assert min(map(len, counts.values())) >= 5
  assert abs(np.mean(counts[0]) - np.mean(counts[1])) < 1.5


def test_the_intruder_is_the_window_that_does_not_fire(split, questions):
  asked = _of(questions, 'intruder')
  assert len(asked) == CONFIG.trials
  places = set()
  for question in asked:
    fires = [
        split.held_out.values[split.held_out.span(i.index)].any()
        for i in question.items
    ]
    (place,) = question.truth
    assert fires.count(False) == 1 and not fires[int(place) - 1]
    places.add(place)
  assert len(places) > 2


def test_simulation_has_the_activations(split, questions):
  for question in _of(questions, 'simulation'):
    (item,) = question.items
    values = split.held_out.values[split.held_out.span(item.index)]
    assert list(question.truth) == values.tolist()


def test_the_strongest_examples_are_not_in_questions(split, questions):
  used = {item.index for q in questions for item in q.items}
  kinds = split.held_out.kinds[sorted(used)]
  assert windows.STRONGEST in split.held_out.kinds
  assert windows.STRONGEST not in kinds


def test_latents_that_never_fire_have_no_questions_with_answers(folder):
  member = windows.Member(folder, planted.MEMBER)
  held_out = windows.split(member.windows(planted.NEVER), seed=0).held_out
  made = questions_lib.make(held_out, latent=4, config=CONFIG)
  assert {q.kind for q in made} == {'detection', 'simulation'}
