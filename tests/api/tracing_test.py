"""Tests of traces: completeness, linear cases, and exact patching."""

import jax.numpy as jnp
import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.api import texts, tracing
from jumprelu.evals import site_effects

TEXT = 'with open(path) as f:\n    return f.'
OPTIONS = {'answer': 'read', 'foil': 'write'}


@pytest.fixture(scope='module')
def saes(suite):
  return [suite['resid_post', 5], suite['transcoder', 4]]


def _total(site):
  return site.latents.sum() + site.affine.sum() + site.error.sum()


def test_gradients_are_those_of_single_attributions(model, saes):
  trace = jumprelu.trace(model, TEXT, saes, answer='read')
  for sae, site in zip(saes, trace.sites, strict=True):
    single = model.attribute(TEXT, target='read', sae=sae)
    options = {'rtol': 1e-3, 'atol': 1e-4}
    np.testing.assert_allclose(site.latents, single.effects, **options)
    np.testing.assert_allclose(site.error, single.error, **options)
    np.testing.assert_allclose(_total(site), single.total, rtol=1e-3)
    assert np.count_nonzero(site.latents) > 10
  assert np.isclose(trace.metric, single.metric, rtol=1e-4)
  assert [n.effect for n in trace.top(5)] == sorted(
      (n.effect for n in trace.top(5)), key=lambda e: -abs(e)
  )
  assert "Trace of 'read' against the mean" in repr(trace)
  assert 'gradient' in trace._repr_html_()


def test_integrated_gradients_add_up_to_the_difference(model, saes):
  trace = jumprelu.trace(
      model, TEXT, saes, method='integrated', steps=32, **OPTIONS
  )
  for sae, site in zip(saes, trace.sites, strict=True):
    # A circuit without nodes has the biases alone at the kept tokens.
    alone = jumprelu.trace(model, TEXT, [sae], method='direct', **OPTIONS)
    without = alone._problem.circuit([], without=False)
    difference = trace.metric - without
    nodes = site.latents.sum() + site.error.sum()
    assert abs(difference) > 0.1 and abs(site.error.sum()) > 1e-3
    np.testing.assert_allclose(nodes, difference, rtol=0.02, atol=0.02)


def test_a_path_near_the_model_has_the_gradient_at_the_model(model, saes):
  near = jumprelu.trace(
      model, TEXT, saes, method='integrated', start=0.999, steps=2, **OPTIONS
  )
  gradient = jumprelu.trace(model, TEXT, saes, **OPTIONS)
  for ours, exact in zip(near.sites, gradient.sites, strict=True):
    scale = np.abs(exact.latents).max()
    np.testing.assert_allclose(ours.latents, exact.latents, atol=0.01 * scale)
    np.testing.assert_allclose(ours.error, exact.error, atol=0.01 * scale)


def test_patching_is_an_ablation_of_each_latent(model, saes):
  trace = jumprelu.trace(model, TEXT, saes[:1], method='patching', **OPTIONS)
  sae, site = saes[0], trace.sites[0]
  read, write = map(model.token_id, ('read', 'write'))
  nodes = [node for node in trace.top(50) if node.latent is not None]
  assert abs(nodes[0].effect) > 1e-2
  for node in (nodes[0], nodes[-1]):
    edit = jumprelu.Edit(sae, node.latent, op='ablate', positions=[node.token])
    logits = model.with_edits([edit]).logits(TEXT)[-1]
    fall = trace.metric - (logits[read] - logits[write])
    np.testing.assert_allclose(node.effect, fall, rtol=1e-2, atol=1e-4)
  silent = trace.acts[0].latents == 0
  assert not site.latents[silent].any() and not site.affine.any()
  assert np.count_nonzero(site.error) == trace.acts[0].keep.sum()


@pytest.fixture
def linear(model, saes, monkeypatch):
  """Makes the metric a linear function of the activations at all taps."""
  rng = np.random.default_rng(0)
  tokens = model.tokenize(TEXT)
  rows, along = {}, {}
  for sae in saes:
    tap = sae.reads.target
    x = model.activations(TEXT, tap)[tap]
    room = texts.padded(tokens).shape[1] - len(x)
    rows[tap] = jnp.asarray(np.pad(x, ((0, room), (0, 0))))
    along[tap] = jnp.asarray(rng.normal(size=rows[tap].shape), jnp.float32)

  def metric(config, params, tokens, metric, splice):
    total = 0
    for tap, replace in splice.items():
      x = jnp.broadcast_to(rows[tap], (len(tokens), *rows[tap].shape))
      total += (replace(x) * along[tap][None]).sum((1, 2))
    return total

  functions = (site_effects.values, site_effects.gradients)
  for function in functions:
    function.clear_cache()
  monkeypatch.setattr(site_effects, '_metric', metric)
  yield
  for function in functions:
    function.clear_cache()


def test_all_methods_agree_if_the_metric_is_linear(model, saes, linear):
  by_method = {
      method: jumprelu.trace(
          model, TEXT, saes, method=method, steps=3, **OPTIONS
      )
      for method in ('gradient', 'integrated', 'patching')
  }
  for number in range(len(saes)):
    gradient, integrated, patching = (
        by_method[m].sites[number] for m in by_method
    )
    for other, atol in ((integrated, 1e-3), (patching, 0.05)):
      np.testing.assert_allclose(other.latents, gradient.latents, atol=atol)
      np.testing.assert_allclose(other.error, gradient.error, atol=atol)
    assert np.abs(gradient.latents).max() > 1


def test_circuits_go_from_no_node_to_the_model(model, saes):
  trace = jumprelu.trace(model, TEXT, saes, **OPTIONS)
  every = len(trace.top(10**6))
  first, last = trace.curve([3, 10**6])
  assert (first.nodes, last.nodes) == (3, every)
  np.testing.assert_allclose(last.faithfulness, 1, atol=0.02)
  assert abs(first.faithfulness - 1) > 1e-3
  circuit = trace._problem.circuit
  np.testing.assert_allclose(circuit([], without=True), trace.metric, atol=2e-3)
  # Completeness is not 0 for all active nodes, because without them latents
  # fire that are silent in the clean pass. It is without these latents, too.
  silent = [
      tracing.Node(number, int(token), int(latent), 0.0)
      for number, acts in enumerate(trace.acts)
      for token, latent in zip(*np.nonzero(acts.latents == 0), strict=True)
  ]
  nodes = [*trace.top(10**6), *silent]
  np.testing.assert_allclose(
      circuit(nodes, without=True), circuit([], without=False), atol=2e-3
  )


def test_direct_effects_are_those_of_activations(model, saes):
  """Against the mean of all logits, as `Activations.effects` has them."""
  sae = saes[0]
  ids = model.tokenize(TEXT)
  trace = jumprelu.trace(
      model, ids[:-1], [sae], method='direct', answer=int(ids[-1]), foil=5
  )
  at = len(ids) - 2
  effects = model.run(ids, sae).effects[at]
  other = model.run([*ids[:-1], 5], sae).effects[at]
  np.testing.assert_allclose(
      trace.sites[0].latents[at], effects - other, rtol=1e-3, atol=1e-4
  )
  assert not trace.sites[0].latents[:at].any()


@pytest.mark.parametrize(
    'options, message',
    [
        ({'method': 'shapley'}, "method='shapley': use gradient, integrated"),
        ({'position': 99}, 'position 99: the text has tokens 0 to'),
        ({'answer': 'no such token'}, 'is .* tokens'),
        ({'steps': 0}, 'steps is empty or 0'),
        ({'start': 1}, 'start=1: must be from 0 to below 1'),
    ],
)
def test_wrong_arguments_are_refused(model, saes, options, message):
  with pytest.raises(errors.UserError, match=message):
    jumprelu.trace(model, TEXT, saes[:1], **{'answer': 'read'} | options)


def test_a_curve_needs_one_sae_per_tap(model, suite):
  both = [suite['resid_post', 5], suite['resid_post', 20]]
  trace = jumprelu.trace(model, TEXT, both, method='direct', **OPTIONS)
  with pytest.raises(
      errors.UserError, match='reconstruct the same activations'
  ):
    trace.curve([3])
