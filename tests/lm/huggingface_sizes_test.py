"""Sizes in config.json that no model has are refused, by field."""

import json

import pytest

from jumprelu import errors
from jumprelu.lm import huggingface
from tests.lm import huggingface_folders


@pytest.mark.parametrize(
    'fields, fault',
    [
        ({'model_type': ['gemma2']}, 'model_type is'),
        (
            {'num_hidden_layers': 2**31 - 1},
            'num_hidden_layers .* at most 1,000',
        ),
        ({'vocab_size': 10**18}, 'vocab_size .* at most 2,147,483,647'),
        ({'head_dim': 7}, 'head_dim is 7, wanted an even number'),
    ],
)
def test_sizes_of_no_model_are_refused_before_memory_is_taken(
    tmp_path, fields, fault
):
  config = huggingface_folders.CONFIGS['27b'] | fields
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.DataError, match=fault):
    huggingface.read_config(tmp_path, 'tiny')


@pytest.mark.parametrize(
    'fields, fault',
    [
        ({'rope_theta': 2**63 - 1}, 'rope_theta .* below 1e[+]09'),
        ({'rope_local_base_freq': 1e18}, 'rope_theta .* below 1e[+]09'),
        (
            {'rope_scaling': {'rope_type': 'linear', 'factor': 0.5}},
            'factor is 0.5, wanted at least 1',
        ),
        (
            {'rope_scaling': {'rope_type': 'linear', 'factor': 10**400}},
            'factor is 1.*, wanted at least 1',
        ),
        (
            {'sliding_window_pattern': 2**31 - 1},
            'sliding_window_pattern .* at most 1,000',
        ),
    ],
)
def test_rotary_embeddings_that_gemma_refuses_are_named(
    tmp_path, fields, fault
):
  config = huggingface_folders.GEMMA3_CONFIGS['gemma3_270m'] | fields
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.DataError, match=fault):
    huggingface.read_config(tmp_path, 'tiny')
