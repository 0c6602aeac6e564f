"""Sharded weights have the wanted shardings and do not change the results."""

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

# Small models like those of the family: the 9B has transposed gating, and the
# 27B another query scale and as many kv heads as `tensor` has devices.
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
  """Returns every tap, and the text of the compiled program."""

  def forward(params, tokens):
    return gemma.run(
        model.config, params, tokens, **batch.kwargs, taps=ALL_TAPS, mesh=mesh
    )[1]

  compiled = jax.jit(forward).lower(model.params, batch.tokens).compile()
  return compiled(model.params, batch.tokens), compiled.as_text()


def _sharded(model, mesh):
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
      ('2b', 2, 4, False),  # 2 kv heads on 4 devices: replicated.
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
    sharded = _sharded(model, mesh)
    values, text = _run(sharded, batch, mesh=mesh)
    for tap in ALL_TAPS:
      np.testing.assert_allclose(values[tap], expected[tap], atol=5e-5)
      self.assertEqual(values[tap].sharding.spec[0], 'data')
    linear = sharded.params['layer_0']['mlp']['linear']
    share = 8 if fsdp else tensor
    self.assertEqual(
        linear.addressable_shards[0].data.size, linear.size / share
    )
    # The batch stays sharded: no device ever holds a layer's full batch.
    for collective in tpu_compile.collectives(text):
      self.assertNotStartsWith(collective.largest, 'f32[8,12,16]', collective)

  def test_the_layout_has_only_the_layers_that_run(self):
    layout = placement.param_layout(
        tiny.CONFIG, num_layers=2, dtype=jnp.bfloat16
    )
    self.assertEqual(
        set(layout), {'embedder', 'final_norm', 'layer_0', 'layer_1'}
    )
    self.assertEqual(layout['layer_0']['mlp']['linear'].dtype, jnp.bfloat16)
