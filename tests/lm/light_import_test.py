"""The language model is loaded without TensorFlow, which still can be."""

import subprocess
import sys

import pytest

from jumprelu.lm import light_import


def _run(code):
  return subprocess.run(
      [sys.executable, '-c', code],
      capture_output=True,
      text=True,
      timeout=180,
      check=True,
  ).stdout


def test_the_forward_pass_needs_no_tensorflow_and_leaves_it_importable():
  code = """
import sys
import jax.numpy as jnp
from jumprelu import lm
model = lm.load('gemma2_nano', dtype='float32')
tap = lm.Tap(0, lm.Site.RESID_POST)
ones = jnp.ones((1, 8), jnp.int32)
values = lm.activations(
    model, model.params, 3 * ones, positions=jnp.arange(8)[None],
    segments=ones, taps=(tap,))
print(values[tap].shape, 'tensorflow' in sys.modules)
import tensorflow as tf
from tensorflow import nn
print(int(tf.add(1, 2)), nn.__name__)
"""
  first, second = _run(code).splitlines()
  assert first.startswith('(1, 8, 128)') and first.endswith('False')
  assert second.startswith('3 ')


def test_what_the_stand_in_lacks_is_read_from_tensorflow(monkeypatch, tmp_path):
  (tmp_path / 'tensorflow.py').write_text('float32 = "the real one"\n')
  monkeypatch.syspath_prepend(tmp_path)
  for name in [n for n in sys.modules if n.split('.')[0] == 'tensorflow']:
    monkeypatch.delitem(sys.modules, name)
  with light_import.without_tensorflow():
    import tensorflow

    assert not isinstance(3, tensorflow.Tensor)
    assert tensorflow.float32 == 'the real one'
  assert sys.modules['tensorflow'].float32 == 'the real one'
  monkeypatch.delitem(sys.modules, 'tensorflow')


def test_the_stand_in_goes_when_the_import_fails(monkeypatch):
  for name in [n for n in sys.modules if n.split('.')[0] == 'tensorflow']:
    monkeypatch.delitem(sys.modules, name)
  with pytest.raises(ImportError), light_import.without_tensorflow():
    raise ImportError
  assert 'tensorflow' not in sys.modules


def test_a_loaded_tensorflow_is_used(monkeypatch):
  loaded = type(sys)('tensorflow')
  monkeypatch.setitem(sys.modules, 'tensorflow', loaded)
  with light_import.without_tensorflow():
    assert sys.modules['tensorflow'] is loaded
  assert sys.modules['tensorflow'] is loaded
