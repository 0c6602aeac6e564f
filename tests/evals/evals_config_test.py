"""The config of evaluations refuses what would make numbers misleading."""

import pytest

from jumprelu import errors, evals


def test_defaults_see_enough_tokens_to_call_a_latent_dead():
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
def test_a_bad_field_is_named_with_its_value(field, value):
  with pytest.raises(errors.UserError, match=f'eval.{field} is {value}'):
    evals.Config(**{field: value})
