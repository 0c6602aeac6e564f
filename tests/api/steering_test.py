"""Tests of continuations under edits and their distances."""

import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.api import steering


def test_distances_are_those_of_hand_made_distributions():
  p, q = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
  kl, loss = steering.distances(p, q, np.array([2]))
  np.testing.assert_allclose(kl, 0.25 * np.log(2), rtol=1e-5)
  np.testing.assert_allclose(loss, np.log(4), rtol=1e-5)


def test_steering_reports_the_distance_to_the_plain_model(model, suite):
  sae = suite['resid_post', 5]
  plain = steering.steer(model, 'def ', [], tokens=6)
  made = model.generate('def ', tokens=6)
  np.testing.assert_array_equal(plain.tokens, made.tokens)
  assert plain.prompt + plain.continuation == made.text
  assert abs(plain.kl) < 1e-4
  # The likeliest tokens have the lowest loss.
  edit = jumprelu.Edit(sae, 3, value=300.0)
  steered = steering.steer(model, 'def ', [edit], tokens=6)
  assert steered.kl > 0.1 and steered.loss > plain.loss
  assert steering.token_rate(steered, steered.tokens.tolist()) == 1
  assert steering.token_rate(steered, [1]) == 0
  assert steering.keyword_rate(plain._replace(continuation='Ab ab'), 'AB') == (
      2 / len(plain.tokens)
  )


def test_strengths_are_in_units_and_begin_with_the_plain_model(suite):
  options = {'op': 'set', 'unit': 8.0}
  several = steering.strengths_of(suite['mlp_out', 7], 3, [0.5, 2], **options)
  assert [strength for strength, _ in several] == [None, 0.5, 2]
  assert several[0][1] == []
  ((edit,),) = [edits for strength, edits in several if strength == 2]
  assert (edit.op, edit.value, edit.unit) == ('set', 2, 8.0)
  ablated = steering.strengths_of(
      suite['mlp_out', 7], 3, [1, 2], **options | {'op': 'ablate'}
  )
  assert len(ablated) == 2


def test_largest_activations_are_those_of_the_features(monkeypatch):
  rows = [{'latent': 2, 'largest': 0.0}, {'latent': 5, 'largest': 7.5}]
  monkeypatch.setattr(steering.reading, 'read_latents', lambda *_, **__: rows)
  assert steering.largest_activations('a', 'b', [5]) == [7.5]
  with pytest.raises(errors.UserError, match='latent 2 of b never fired'):
    steering.largest_activations('a', 'b', [5, 2])
