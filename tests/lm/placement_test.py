"""Weights cut over the devices: where they lie, and that nothing changes."""

import dataclasses
import itertools
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm, sharding
from jumprelu.lm import gemma, placement
from jumprelu.planning import tpu_compile
from tests.lm import tiny

Site, Tap = lm.Site, lm.Tap
ALL_TAPS = frozenset(itertools.starmap(Tap, itertools.product(range(4), Site)))

# The shapes of the family in small: 2B; 9B with transposed gating; 27B with
# its own query scale and as many key and value heads as `tensor` has devices.
_KINDS = {
    '2b': tiny.CONFIG,
    '9b': dataclasses.replace(
        tiny.CONFIG, name='tiny9', transposed_gating=True
    ),
    '27b': dataclasses.replace(
        tiny.CONFIG,
        name='tiny27',
        heads=8,
        kv_heads=4,
        transposed_gating=True,
        query_scale_by_model=True,
    ),
}


def _run(model, batch, *, mesh=None):
  """Compiles and runs the forward pass; every tap, and the program's text."""

  def forward(params, tokens):
    return gemma.run(
        model.config, params, tokens, **batch.kwargs, taps=ALL_TAPS, mesh=mesh
    )[1]

  compiled = jax.jit(forward).lower(model.params, batch.tokens).compile()
  return compiled(model.params, batch.tokens), compiled.as_text()


def _laid(model, mesh):
  layout = placement.param_layout(
      model.config, num_layers=4, dtype=jnp.float32, mesh=mesh
  )

  def put(x, want):
    return jax.device_put(x, want.sharding)

  return dataclasses.replace(
      model, params=jax.tree.map(put, model.params, layout)
  )


def _mesh(data, tensor):
  return sharding.make_mesh(
      sharding.Config(data=data, tensor=tensor), jax.devices()[: data * tensor]
  )


class PlacementTest(parameterized.TestCase):

  @parameterized.parameters(
      ('2b', 4, 2, False),
      ('2b', 2, 4, False),  # 2 key and value heads on 4: replicated
      ('2b', 8, 1, True),
      ('9b', 4, 2, True),
      ('27b', 2, 4, True),
  )
  def test_sharded_equals_unsharded(self, kind, data, tensor, fsdp):
    self.enter_context(
        mock.patch.object(sharding, 'MAX_WEIGHT_BYTES', 0 if fsdp else 2**40)
    )
    model, batch, mesh = (
        tiny.model(_KINDS[kind]),
        tiny.batch(8),
        _mesh(data, tensor),
    )
    expected, _ = _run(model, batch)
    laid = _laid(model, mesh)
    values, text = _run(laid, batch, mesh=mesh)
    for tap in ALL_TAPS:
      np.testing.assert_allclose(values[tap], expected[tap], atol=5e-5)
      self.assertEqual(values[tap].sharding.spec[0], 'data')
    linear = laid.params['layer_0']['mlp']['linear']
    share = 8 if fsdp else tensor
    self.assertEqual(
        linear.addressable_shards[0].data.size, linear.size / share
    )
    # The batch stays cut: no device ever holds all sequences of a layer.
    for found in tpu_compile.collectives(text):
      self.assertNotStartsWith(found.largest, 'f32[8,12,16]', found)

  def test_only_layers_that_run_are_there(self):
    layout = placement.param_layout(
        tiny.CONFIG, num_layers=2, dtype=jnp.bfloat16
    )
    self.assertEqual(
        set(layout), {'embedder', 'final_norm', 'layer_0', 'layer_1'}
    )
    self.assertEqual(layout['layer_0']['mlp']['linear'].dtype, jnp.bfloat16)
