"""Orbax folders are read: flat and nested trees, each version of zarr."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jumprelu import errors, lm, sharding
from jumprelu.lm import gemma, orbax_folder, weights
from tests.lm import tiny

# The window and context of released models, which no orbax folder stores.
CONFIG = dataclasses.replace(
    tiny.CONFIG, name='tiny', layers=2, window=4096, context=8192
)
LARGE = lm.MODELS['gemma2_27b']


def flat(params):
  """Returns the flat tree of released checkpoints."""
  tree = {}
  for key, leaf in weights.flatten(params).items():
    module, _, name = key.rpartition('/')
    if '/mlp/' in key:
      module, name = key, 'w'
    tree.setdefault(f'transformer/{module}', {})[name] = leaf
  return tree


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Returns folders of the tiny model in all formats that orbax writes."""
  root = tmp_path_factory.mktemp('orbax')
  params = dict(tiny.model(CONFIG).params)
  for name, tree, options in (
      ('flat', flat(params), {}),
      ('nested', params, {}),
      ('files', flat(params), {'use_ocdbt': False}),
      ('zarr3', params, {'use_ocdbt': True, 'use_zarr3': True}),
  ):
    ocp.PyTreeCheckpointer(**options).save(root / name / 'tiny', tree)
  return root


@pytest.fixture
def copy(folders, tmp_path):
  return shutil.copytree(folders / 'files' / 'tiny', tmp_path / 'tiny')


@pytest.mark.parametrize('kind', ['flat', 'nested', 'files', 'zarr3'])
def test_every_format_is_read(folders, kind):
  folder = folders / kind / 'tiny'
  assert lm.get_config(str(folder)) == CONFIG
  reader = orbax_folder.Weights(folder, CONFIG)
  params = weights.load(CONFIG, reader, num_layers=1)
  wanted = {k: v for k, v in tiny.model(CONFIG).params.items() if k in params}
  assert len(wanted) == 3
  jax.tree.map(np.testing.assert_array_equal, params, wanted)


def test_the_parent_folder_is_read_too_with_its_tokenizer(folders):
  parent, inside = folders / 'flat', folders / 'flat' / 'tiny'
  (parent / 'tokenizer.model').write_bytes(b'pieces')
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  model = lm.load(str(parent), num_layers=1, dtype=jnp.bfloat16, mesh=mesh)
  assert model.config == dataclasses.replace(CONFIG, name='flat')
  assert model.tokenizer_path.read_bytes() == b'pieces'
  direct = lm.load(str(inside), num_layers=1)
  assert direct.tokenizer_path.read_bytes() == b'pieces'
  jax.tree.map(
      lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16)),
      model.params,
      direct.params,
  )


def save(folder, config):
  """Writes zeros in the shapes of a config's first layer."""
  config = dataclasses.replace(config, layers=1)
  zeros = jax.tree.map(
      lambda x: np.zeros(x.shape, jnp.bfloat16), gemma.param_shapes(config)
  )
  ocp.PyTreeCheckpointer().save(folder, zeros)


@pytest.mark.parametrize('transposed', [False, True])
def test_gating_and_query_scale_are_recognised_by_shape(tmp_path, transposed):
  # The 27B is recognised by its heads and width; other sizes are small here to
  # save time.
  config = dataclasses.replace(
      LARGE,
      vocab=8,
      ffw=4,
      kv_heads=2,
      transposed_gating=transposed,
      query_scale_by_model=transposed,
      heads=LARGE.heads if transposed else 4,
  )
  save(tmp_path / 'large', config)
  recognised = lm.get_config(str(tmp_path / 'large'))
  assert recognised == dataclasses.replace(config, name='large', layers=1)


def rewrite(path, change):
  path.write_bytes(change(path.read_bytes()))


def test_a_missing_tensor_is_named(copy):
  shutil.rmtree(copy / 'transformer' / 'layer_1' / 'mlp' / 'linear.w')
  with pytest.raises(
      errors.DataError, match=r'layer_1/mlp/linear is missing.*\(32, 16\)'
  ):
    lm.load(str(copy))


def test_a_tensor_of_another_shape_is_named_with_both(tmp_path):
  params = dict(tiny.model(CONFIG).params)
  layer = dict(params['layer_1'])
  layer['mlp'] = layer['mlp'] | {'linear': np.zeros((31, 16), np.float32)}
  ocp.PyTreeCheckpointer().save(tmp_path / 'a', params | {'layer_1': layer})
  with pytest.raises(
      errors.DataError, match=r'layer_1/mlp/linear has.*\(31, 16\).*\(32, 16\)'
  ):
    lm.load(str(tmp_path / 'a'))


def test_a_tensor_that_no_gemma_2_has_is_named(tmp_path):
  params = dict(tiny.model(CONFIG).params) | {'vision': {'w': np.ones(3)}}
  ocp.PyTreeCheckpointer().save(tmp_path / 'a', params)
  with pytest.raises(errors.DataError, match=r'vision/w, shape \(3,\), is unk'):
    lm.load(str(tmp_path / 'a'))


def test_another_tree_is_not_gemma_2(tmp_path):
  ocp.PyTreeCheckpointer().save(tmp_path / 'a', {'w': np.ones(3)})
  with pytest.raises(
      errors.DataError, match='not shaped like Gemma 2.*input_embedding'
  ):
    lm.get_config(str(tmp_path / 'a'))


def test_missing_and_truncated_chunks_are_errors_not_zeros(copy):
  chunk = copy / 'transformer' / 'layer_1' / 'mlp' / 'linear.w' / '0.0'
  rewrite(chunk, lambda data: data[: len(data) // 2])
  with pytest.raises(errors.DataError, match='layer_1/mlp/linear is not read'):
    lm.load(str(copy))
  chunk.unlink()
  with pytest.raises(errors.DataError, match='layer_1/mlp/linear is not read'):
    lm.load(str(copy))


def test_damaged_metadata_is_named(folders, tmp_path):
  folder = shutil.copytree(folders / 'nested' / 'tiny', tmp_path / 'tiny')
  rewrite(folder / 'manifest.ocdbt', lambda data: data[:20])
  with pytest.raises(errors.DataError, match='not readable'):
    lm.get_config(str(folder))
  (folder / '_METADATA').write_text('{')
  with pytest.raises(errors.DataError, match='_METADATA: not JSON'):
    lm.get_config(str(folder))


def test_reading_shapes_uses_no_device_and_does_not_import_gemma(folders):
  code = (
      'import sys\n'
      'from jumprelu import lm\n'
      f'lm.get_config({str(folders / "nested" / "tiny")!r})\n'
      'from jax._src import xla_bridge\n'
      'assert not xla_bridge.backends_are_initialized()\n'
      'assert "gemma" not in sys.modules and "orbax" not in sys.modules'
  )
  done = subprocess.run(
      [sys.executable, '-P', '-c', code],
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr


def test_a_folder_of_no_or_several_models_is_an_error(folders, tmp_path):
  with pytest.raises(errors.MissingInputError, match='no model in this folder'):
    lm.get_config(str(tmp_path))
  for name in ('a', 'b'):
    pathlib.Path(tmp_path / name).mkdir()
    (tmp_path / name / '_METADATA').write_text('{}')
  with pytest.raises(errors.MissingInputError, match='no model in this folder'):
    lm.get_config(str(tmp_path))
  # A folder may also have been removed after it was recognised.
  for folder in (tmp_path, tmp_path / 'gone'):
    with pytest.raises(
        errors.MissingInputError, match='neither this folder nor'
    ):
      orbax_folder.Weights(folder, CONFIG)
