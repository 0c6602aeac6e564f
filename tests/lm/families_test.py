"""All shared code supports a second family, added as a row of the table."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jumprelu import errors, lm
from jumprelu.data import packing
from jumprelu.evals import parity
from jumprelu.lm import attention, families, gemma, source
from jumprelu.planning import costs
from jumprelu.release import hook_names
from jumprelu.release.formats import hooks
from tests.lm import second_family, tiny

CONFIG = second_family.CONFIG
Site, Tap = lm.Site, lm.Tap
RESIDUALS = tuple(Tap(layer, Site.RESID_POST) for layer in range(4))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  second_family.register(monkeypatch)


@pytest.fixture
def model(tmp_path):
  return lm.load(str(second_family.write(tmp_path / 'folder')))


def activations(model, batch, taps=RESIDUALS, **changes):
  config = dataclasses.replace(model.config, **changes)
  model = dataclasses.replace(model, config=config)

  @jax.jit
  def forward(params, tokens):
    return lm.activations(model, params, tokens, **batch.kwargs, taps=taps)

  return jax.device_get(forward(model.params, batch.tokens))


def test_every_family_has_the_special_ids_that_packing_writes():
  for family in lm.FAMILIES.values():
    ids = family.special_ids
    assert ids[:4] == (packing.PAD, packing.EOS, packing.BOS, packing.UNK)
    assert family.turn_pieces == packing.TURN_PIECES


def test_every_family_names_every_site():
  for family in lm.FAMILIES.values():
    assert set(family.hook_names) == set(Site)
    assert set(family.site_of_path.values()) == set(Site)
    assert all(config.family == family.name for config in family.models)


def test_names_of_models_are_spelt_by_family():
  assert lm.spell_models() == (
      'gemma2_nano, gemma2_{2b,9b,27b}[_it],'
      ' gemma3_{270m,1b,4b,12b,27b}[_it], second_tiny, second_{}[_it]'
  )


def test_an_unknown_family_is_an_error():
  config = dataclasses.replace(CONFIG, family='third')
  with pytest.raises(ValueError, match="family='third'.*gemma3, second"):
    lm.family_of(config)
  with pytest.raises(ValueError, match='layer_pattern'):
    dataclasses.replace(CONFIG, layer_pattern=('sideways',))


@pytest.mark.parametrize('prefix', ['lm.', 'text.lm.'])
def test_its_hugging_face_folder_is_read_with_its_own_names(tmp_path, prefix):
  folder = second_family.write(
      tmp_path / 'folder', prefix=prefix, model_type='second_with_images'
  )
  assert lm.get_config(str(folder)) == dataclasses.replace(
      CONFIG, name='folder'
  )
  model = lm.load(str(folder), num_layers=1)
  norm = model.params['layer_0']['attn']['_query_norm']['scale']
  assert norm.shape == (8,) and np.any(norm)
  assert lm.self_check(model) < 1e-5


def test_faults_of_a_folder_name_the_family(tmp_path):
  folder = second_family.write(tmp_path / 'folder')
  text = (folder / 'config.json').read_text()
  (folder / 'config.json').write_text(text.replace('"window"', '"other"'))
  with pytest.raises(errors.DataError, match='like Second: text.window is mis'):
    lm.get_config(str(folder))
  (folder / 'config.json').write_text('{"model_type": "third"}')
  with pytest.raises(errors.DataError, match="'gemma3' or 'second' or"):
    lm.get_config(str(folder))


def test_its_orbax_folder_is_distinguished_from_gemma_2s(
    tmp_path, model, monkeypatch
):
  # Gemma 3's tensors have the same names.
  monkeypatch.delitem(families.FAMILIES, 'gemma3')
  ocp.PyTreeCheckpointer().save(tmp_path / 'second', dict(model.params))
  ocp.PyTreeCheckpointer().save(tmp_path / 'gemma', dict(tiny.model().params))
  config = lm.get_config(str(tmp_path / 'second'))
  assert config == dataclasses.replace(CONFIG, name='second')
  assert lm.get_config(str(tmp_path / 'gemma')).family == 'gemma2'
  jax.tree.map(
      np.testing.assert_array_equal,
      lm.load(str(tmp_path / 'second')).params,
      model.params,
  )


def test_an_orbax_folder_of_no_known_family_is_refused(
    tmp_path, model, monkeypatch
):
  ocp.PyTreeCheckpointer().save(tmp_path / 'second', dict(model.params))
  for name in ('gemma3', 'second'):
    monkeypatch.delitem(families.FAMILIES, name)
  with pytest.raises(
      errors.DataError, match='like Gemma 2: it holds layer_0/attn/_query_norm'
  ):
    lm.get_config(str(tmp_path / 'second'))


def test_the_error_for_missing_weights_is_the_familys(tmp_path, monkeypatch):
  monkeypatch.setenv('JUMPRELU_MODELS', str(tmp_path))
  with pytest.raises(errors.MissingInputError, match='ask the maker of second'):
    lm.load('second_tiny')


def test_a_known_model_has_its_familys_pattern(tmp_path, monkeypatch):
  monkeypatch.setenv('JUMPRELU_MODELS', str(tmp_path))
  second_family.write(tmp_path / 'second_tiny')
  assert source.find('second_tiny').config == CONFIG
  other = dataclasses.replace(CONFIG, layer_pattern=('local', 'global'))
  monkeypatch.setitem(families.MODELS, 'second_tiny', other)
  with pytest.raises(errors.DataError, match='layer_pattern is'):
    source.find('second_tiny')


@pytest.mark.parametrize('form', ['dense', 'chunked'])
def test_layers_are_local_and_global_in_the_familys_pattern(model, form):
  batch = tiny.batch(1, 12)
  changed = dataclasses.replace(
      batch, tokens=batch.tokens.at[:, 0].set(batch.tokens[0, 5])
  )
  before = activations(model, batch, attention=form)
  after = activations(model, changed, attention=form)
  # A layer with a window of 3 reaches 2 positions further; the third layer is
  # global.
  for layer, reached in ((0, 2), (1, 4), (2, 11), (3, 11)):
    tap = Tap(layer, Site.RESID_POST)
    same = (before[tap] == after[tap]).all(axis=(0, 2))
    assert same.tolist() == [i > reached for i in range(12)], layer


@pytest.mark.parametrize('form', ['dense', 'chunked'])
def test_queries_and_keys_are_normalised(model, form):
  batch = tiny.batch(1, 12)
  params = jax.tree.map(lambda x: x, dict(model.params))
  for layer in range(4):
    weights = params[f'layer_{layer}']['attn']
    weights['q_einsum'] = {'w': 8 * weights['q_einsum']['w']}
  scaled = dataclasses.replace(model, params=params)
  before = activations(model, batch, attention=form)
  after = activations(scaled, batch, attention=form)
  for tap in RESIDUALS:
    np.testing.assert_allclose(before[tap], after[tap], rtol=1e-3, atol=1e-4)


def test_forms_of_attention_agree(model):
  batch = tiny.batch(2, 20)
  taps = tuple(Tap(layer, site) for layer in range(4) for site in Site)
  dense = activations(model, batch, taps, attention='dense')
  chunked = activations(model, batch, taps, attention='chunked')
  for tap in taps:
    np.testing.assert_allclose(chunked[tap], dense[tap], rtol=1e-5, atol=3e-5)


def test_the_kernel_needs_no_soft_cap():
  config = dataclasses.replace(CONFIG, head_dim=128, attention='splash')
  assert attention.self_check(config) < 1e-5


@pytest.mark.parametrize('form', ['dense', 'chunked'])
def test_each_kind_of_layer_has_its_own_rotary_embedding(model, form):
  batch = tiny.batch(1, 12)
  before = activations(model, batch, attention=form)
  for field, first in (('local_rope', 0), ('global_rope', 2)):
    for change in ({'base': 7}, {'scale': 5.0}):
      rope = getattr(CONFIG, field)._replace(**change)
      after = activations(model, batch, attention=form, **{field: rope})
      for layer, tap in enumerate(RESIDUALS):
        same = np.array_equal(before[tap], after[tap])
        assert same == (layer < first), (field, change, layer)


def test_logits_without_a_soft_cap_are_the_product(model):
  hidden = 50 * np.random.RandomState(0).normal(size=(3, 16))
  logits = lm.unembed(model, model.params, jnp.asarray(hidden, jnp.float32))
  embedding = model.params['embedder']['input_embedding']
  expected = hidden @ np.asarray(embedding, np.float64).T
  assert np.abs(expected).max() > 60
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_parameters_have_the_axes_of_their_family(monkeypatch):
  axes = {'layer/attn/_query_norm/scale': ('heads',)}
  family = dataclasses.replace(
      second_family.FAMILY, param_axes=lambda config: axes
  )
  monkeypatch.setitem(families.FAMILIES, 'second', family)
  tree = gemma.param_axes(CONFIG)
  assert tree['layer_3']['attn']['_query_norm']['scale'] == ('heads',)
  assert tree['layer_3']['attn']['_key_norm']['scale'] == (None,)


def test_costs_are_those_of_its_matrices():
  heads = 16 * 8 * (4 + 2 + 4)
  assert costs.layer_params(CONFIG) == heads + 7
  whole = costs.lm_flops(CONFIG, layer=0, positions=10)
  assert whole == 2 * (heads + 7) + 4 * 4 * 8 * 10
  before = costs.lm_flops(CONFIG, layer=0, positions=10, sites=[Site.MLP_IN])
  assert whole - before == 2 * 7


def test_its_hooks_are_written_and_recognised():
  names = hook_names.hook_names('attn_heads', layer=3, family='second')
  assert names['input'] == {
      'jumprelu': 'attn_heads',
      'transformer_lens': 'lens.3.heads',
      'huggingface': 'model.layers.3.attention.project.input',
  }
  without = hook_names.hook_names(
      'transcoder', layer=3, input_gain=False, family='second'
  )
  assert without['input']['transformer_lens'] == 'lens.3.norm'
  assert without['target']['transformer_lens'] == 'lens.3.mlp'
  origin = hooks.origin_of(
      'model.layers.3.before_mlp.output', 'model.layers.3.mlp_norm.output'
  )
  assert (origin.layer, origin.site, origin.input_gain) == (
      3, 'transcoder', True,
  )  # fmt: skip
  gemma = 'model.layers.3.self_attn.o_proj.input'
  assert hooks.origin_of(gemma).site == 'attn_heads'
  assert hooks.model_of('maker/second') == 'second_tiny'
  assert hooks.model_of('google/gemma-2-2b-it') == 'gemma2_2b_it'


class Module:
  """The part of torch's Module that hooks use."""

  def __init__(self, **children):
    self.children = children
    self.before, self.after = [], []
    self.register_forward_pre_hook = self.before.append
    self.register_forward_hook = self.after.append

  def get_submodule(self, path):
    first, _, rest = path.partition('.')
    child = self.children[first]
    return child.get_submodule(rest) if rest else child

  def run(self, value, out):
    for hook in self.before:
      hook(self, (value,))
    for hook in self.after:
      hook(self, (value,), out)


def test_parity_hooks_the_modules_that_the_family_names():
  inner = Module(project=Module())
  layer = Module(attention=inner, mlp_norm=Module(), before_mlp=Module())
  model = Module(model=Module(layers=Module(**{'0': layer})))
  values = {}
  for site, names in second_family.FAMILY.hook_names.items():
    name = names.huggingface.format(layer=0)
    parity._record(values, Tap(0, site), model, name)

  def array(name):
    return types.SimpleNamespace(detach=lambda: name)

  inner.children['project'].run(array('heads'), array('projected'))
  layer.children['mlp_norm'].run(array('x'), array('mlp out'))
  layer.children['before_mlp'].run(array('x'), array('mlp in'))
  layer.run(array('x'), (array('after'), None))
  assert values == {
      Tap(0, Site.ATTN_HEADS): 'heads',
      Tap(0, Site.MLP_OUT): 'mlp out',
      Tap(0, Site.MLP_IN): 'mlp in',
      Tap(0, Site.RESID_POST): 'after',
  }
