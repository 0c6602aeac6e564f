"""Checks of the evaluation config against misleading settings."""

import pytest

from jumprelu import errors, evals


def test_the_defaults_have_enough_tokens_for_dead_latents():
  config = evals.Config()
  assert config.tokens >= config.dead_window_tokens >= 100_000


@pytest.mark.parametrize(
    'field, value',
    [
        ('tokens', 0),
        ('delta_loss_tokens', -1),
        ('lm_sequences', 0),
        ('pca_tokens', -5),
        ('dead_window_tokens', 99_999),
        ('dense_share', 0.0),
        ('dense_share', 1.0),
    ],
)
def test_an_invalid_value_is_refused_with_its_field(field, value):
  with pytest.raises(
      errors.UserError, match=f'eval.{field} must be .*got {value}'
  ):
    evals.Config(**{field: value})
