"""Weights are read as written, and errors name the faulty file or tensor."""

import pathlib
import tempfile

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.lm import weights
from tests.lm import tiny


class WeightsTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.model = tiny.model()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.path = self.folder / 'params.safetensors'

  def write(self, flat):
    weights.write(weights.unflatten(flat), self.path, {'step': 1})

  def test_written_weights_are_read_rounded_to_bfloat16(self):
    self.write(weights.flatten(self.model.params))
    params = weights.read(tiny.CONFIG, self.path)
    expected = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
        dict(self.model.params),
    )
    self.assertEqual(jax.tree.structure(params), jax.tree.structure(expected))
    jax.tree.map(np.testing.assert_array_equal, params, expected)

  def test_only_the_requested_layers_are_read(self):
    self.write(weights.flatten(self.model.params))
    params = weights.read(tiny.CONFIG, self.path, num_layers=2)
    layers = sorted(key for key in params if key.startswith('layer_'))
    self.assertEqual(layers, ['layer_0', 'layer_1'])

  def test_a_missing_file_is_named(self):
    with self.assertRaisesRegex(errors.MissingInputError, 'nowhere'):
      weights.read(tiny.CONFIG, self.folder / 'nowhere')

  def test_a_missing_tensor_is_named(self):
    flat = weights.flatten(self.model.params)
    del flat['layer_1/mlp/linear']
    self.write(flat)
    with self.assertRaisesRegex(errors.DataError, 'layer_1/mlp/linear'):
      weights.read(tiny.CONFIG, self.path)

  def test_a_wrong_shape_is_named_with_both_shapes(self):
    flat = weights.flatten(self.model.params)
    flat['layer_1/mlp/linear'] = flat['layer_1/mlp/linear'][:-1]
    self.write(flat)
    with self.assertRaisesRegex(
        errors.DataError, r'layer_1/mlp/linear.*\(31, 16\).*\(32, 16\)'
    ):
      weights.read(tiny.CONFIG, self.path)

  def test_a_truncated_file_is_an_error(self):
    self.write(weights.flatten(self.model.params))
    data = self.path.read_bytes()
    self.path.write_bytes(data[: len(data) // 2])
    with self.assertRaisesRegex(errors.DataError, 'not readable'):
      weights.read(tiny.CONFIG, self.path)


if __name__ == '__main__':
  absltest.main()
