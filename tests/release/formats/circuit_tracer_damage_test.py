"""Damaged or unsupported sets of circuit-tracer: one line names the fault."""

import numpy as np
import pytest
from safetensors import numpy as safetensors

from jumprelu.release import formats
from tests.release.exports import small
from tests.release.formats import damage_test

refused = damage_test.refused


@pytest.fixture
def folder(tmp_path):
  """Returns a sound set of one layer."""
  small.export(
      [small.make(origin=small.TRANSCODER)], tmp_path, to='circuit_tracer'
  )
  assert list(formats.find(tmp_path)) == ['layer_3']
  return tmp_path


def _edit_config(folder, old, new):
  path = folder / 'config.yaml'
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    'old, new, words',
    [
        ('transcoder_set', 'clt', ("model_kind is 'clt'", 'transcoder_set')),
        ('model_kind', 'kind', ('unknown field kind', 'model_kind')),
        (
            'feature_input_hook: "ln2.hook_normalized"',
            'feature_input_hook: "hook_resid_mid"',
            ('hook_resid_mid', 'ln2.hook_normalized'),
        ),
        (
            'model_kind:',
            'activation: topk\nmodel_kind:',
            ("activation is 'topk'", 'jump_relu'),
        ),
        (
            'model_kind:',
            'normalize: true\nmodel_kind:',
            ('unknown field normalize',),
        ),
    ],
)
def test_invalid_fields_of_a_config(folder, old, new, words):
  _edit_config(folder, old, new)
  refused(folder, 'config.yaml', *words)


def _with_cosine(tensors):
  return tensors | {'W_cos': tensors['W_enc']}


def _without_bias(tensors):
  return {name: x for name, x in tensors.items() if name != 'b_dec'}


def _transposed(tensors):
  return tensors | {'W_dec': np.ascontiguousarray(tensors['W_dec'].T)}


def _not_finite(tensors):
  return tensors | {'b_enc': tensors['b_enc'] * np.nan}


@pytest.mark.parametrize(
    'change, words',
    [
        (_with_cosine, ('unexpected tensor W_cos',)),
        (_without_bias, ('b_dec is missing',)),
        (_transposed, ('W_dec has shape',)),
        (_not_finite, ('b_enc', 'non-finite')),
    ],
)
def test_invalid_tensors_of_a_layer(folder, change, words):
  path = folder / 'layer_3.safetensors'
  safetensors.save_file(change(safetensors.load_file(path)), path)
  refused(folder, 'layer_3.safetensors', *words)


def test_a_truncated_layer(folder):
  path = folder / 'layer_3.safetensors'
  path.write_bytes(path.read_bytes()[:-7])
  refused(folder, 'layer_3.safetensors')


def test_two_files_of_a_layer(folder):
  path = folder / 'layer_03.safetensors'
  path.write_bytes((folder / 'layer_3.safetensors').read_bytes())
  refused(folder, 'layer_3.safetensors', 'of layer 3, too; keep one')
