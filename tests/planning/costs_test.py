"""Formulas of FLOPs and bytes agree with XLA and with published numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarking import scale
from jumprelu import lm, saes, sharding
from jumprelu.lm import gemma
from jumprelu.planning import chips, costs
from jumprelu.training import config, load_run, suite
from tests.lm import tiny

_B = 10**9


def _flops(function, *args):
  return jax.jit(function).lower(*args).compile().cost_analysis()['flops']


def test_flops_of_the_language_model_agree_with_xla():
  # Wide enough for matrix products to outweigh norms and soft caps.
  shape = lm.LmConfig(
      name='t', vocab=64, d_model=128, ffw=512, heads=4, kv_heads=2,
      head_dim=32, layers=3,
  )  # fmt: skip
  params = gemma.param_shapes(shape)
  batch = tiny.batch(2, 64)

  def forward(params, tokens, taps):
    return gemma.run(
        shape, params, tokens, **batch.kwargs, num_layers=3, taps=taps
    )[1]

  for sites in ((lm.Site.RESID_POST,), (lm.Site.ATTN_HEADS,)):
    taps = frozenset(lm.Tap(2, site) for site in sites)
    counted = _flops(lambda p, t, taps=taps: forward(p, t, taps), params,
                     batch.tokens)  # fmt: skip
    formula = 2 * 64 * costs.lm_flops(shape, layer=2, positions=64, sites=sites)
    # XLA also counts norms, softmax and gates; the formula only products.
    assert 1.0 < counted / formula < 1.12, sites


@pytest.mark.parametrize('transcoder', [False, True])
def test_flops_of_a_training_step_agree_with_xla(transcoder):
  sae = saes.make_sae(
      'jumprelu', saes.jumprelu.Config(), d_in=128,
      d_out=192 if transcoder else 128, width=512, transcoder=transcoder,
  )  # fmt: skip
  group = suite.Group('g', lm.make_reads('transcoder', 0), {}, sae, ())
  params = jax.eval_shape(
      lambda: sae.init_params(jax.random.key(0), initial_threshold=0.1)
  )
  x = jax.ShapeDtypeStruct((256, sae.d_in), jnp.float32)
  y = jax.ShapeDtypeStruct((256, sae.d_out), jnp.float32)

  def loss(params, x, y):
    return sae.loss(
        params, x, y, keep=jnp.ones(256, bool), sparsity_coefficient=0.1,
        target_l0=1.0,
    )[0]  # fmt: skip

  counted = _flops(jax.grad(loss), params, x, y)
  assert 1.0 < counted / (256 * costs.member_flops(group)) < 1.06


@pytest.mark.parametrize(
    'model, layer, layer_params, layer_flops, to_layer',
    [
        ('gemma2_2b', 12, 77.9e6, 0.164, 2.13),
        ('gemma2_9b', 20, 198.2e6, 0.413, 8.68),
        ('gemma2_27b', 22, 566.2e6, 1.149, 26.4),
    ],
)
def test_costs_of_gemma_agree_with_its_shapes(
    model, layer, layer_params, layer_flops, to_layer
):
  shape = lm.get_config(model)
  near = pytest.approx
  assert costs.layer_params(shape) == near(layer_params, rel=1e-3)
  assert costs.layer_flops(shape, 1024) / _B == near(layer_flops, rel=4e-3)
  total = costs.lm_flops(shape, layer=layer, positions=1024)
  assert total / _B == near(to_layer, rel=4e-3)


def test_loaded_parameters_are_those_of_the_parameter_tree():
  shape = lm.get_config('gemma2_nano')
  tree = gemma.param_shapes(shape)
  norms = shape.d_model * (4 * shape.layers + 1)
  count = sum(x.size for x in jax.tree.leaves(tree)) - norms
  assert costs.loaded_params(shape, shape.layers) == count


def _config(**changes):
  return config.resolve(
      {
          'recipe': 'paper',
          'model': 'gemma2_2b',
          'layer': 12,
          'sites': ('resid_post', 'mlp_out', 'attn_heads'),
          'sparsity_coefficients': ('1e-4', '3e-4', '6e-4', '1e-3', '2e-3'),
          'stream.lm_sequences': 64,
          **changes,
      }
  )


@pytest.mark.parametrize(
    'changes', [{}, {'variants': ('gated',), 'sae.gated.tied': False}]
)
def test_the_number_of_parameters_is_that_of_init_params(changes):
  group, *_ = load_run.make_suite(_config(**changes))
  params = jax.eval_shape(
      lambda: group.sae.init_params(jax.random.key(0), initial_threshold=0.1)
  )
  count = sum(x.size for x in jax.tree.leaves(params))
  assert costs.member_params(group) == count


def test_a_chips_share_of_a_step_counts_padding():
  groups = load_run.make_suite(_config())
  one_chip = costs.step_flops(groups, sharding.MeshShape(1, 1), 4096)
  sixteen = costs.step_flops(groups, sharding.MeshShape(8, 2), 4096)
  # 5 members are padded to 8, one for each device along `data`.
  np.testing.assert_allclose(sixteen, one_chip / 16 * 8 / 5)


def test_a_transcoder_gathers_its_inputs_and_its_targets():
  mesh = sharding.MeshShape(8, 1)
  traffic = {}
  for site in ('resid_post', 'mlp_out', 'attn_heads', 'transcoder'):
    groups = load_run.make_suite(_config(sites=(site,)))
    (group,) = groups
    members, latents, rows = costs.parts(group, mesh)
    # Members are on separate devices, so only rows in bfloat16 are transferred.
    assert latents == rows == 1 and members == 1
    traffic[site] = costs.step_traffic(groups, mesh, 4096)
  assert traffic['resid_post'] == traffic['mlp_out'] == 2 * 4096 * 2304
  assert traffic['attn_heads'] == 2 * 4096 * 2048
  assert traffic['transcoder'] == 2 * 4096 * 2 * 2304


def test_gradients_cross_the_mesh_only_if_the_batch_is_sharded():
  narrow = load_run.make_suite(_config(widths=(2048,)))
  mesh = sharding.MeshShape(16, 1)
  assert suite.layout_of(narrow[0], mesh).name == 'latents'
  gradients = 2 * 4 * sum(5 * costs.member_params(g) for g in narrow)
  assert costs.step_traffic(narrow, mesh, 4096) == gradients
  assert costs.step_traffic(narrow, sharding.MeshShape(1, 1), 4096) == 0


@pytest.mark.parametrize(
    'name, gib',
    [
        ('2b-16k-v5e', 3.15),
        ('2b-16k-v5e-oracle', 3.56),
        ('2b-16k-v5e-gated', 3.76),
        ('2b-65k-v5e', 7.60),
        ('2b-65k-v5p', 27.12),
        ('9b-131k-v5e', 4.57),
        ('9b-131k-v5e-gated', 4.63),
        ('9b-131k-v5p', 18.40),
        ('27b-131k-v5p', 37.29),
    ],
)
def test_memory_of_a_suite_is_near_the_tpu_compilers_report(name, gib):
  # Reported for the steps by `experiments/benchmarking/scale.py compile`
  # (docs/scale.md).
  topology, cfg = scale.SUITES[name]
  tensor = cfg.mesh.tensor
  mesh = sharding.MeshShape(chips.parse(topology).chips // tensor, tensor)
  # Short forward passes keep the temporaries of a block's program below those
  # of a step.
  short_forwards = dataclasses.replace(
      cfg,
      stream=dataclasses.replace(cfg.stream, lm_sequences=mesh.shape['data']),
  )
  memory = costs.memory(short_forwards, mesh)
  steps = memory.state + memory.block + memory.temporary
  assert steps / 2**30 == pytest.approx(gib, rel=0.03)


def test_the_language_models_weights_agree_with_the_tpu_compilers_report():
  # Reported for the arguments of the block's program on v5e:4x4, tensor 2.
  memory = costs.memory(_config(), sharding.MeshShape(8, 2))
  assert memory.weights / 2**30 == pytest.approx(1.49, rel=0.01)
