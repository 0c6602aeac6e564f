"""Each published format: latents and reconstructions against plain NumPy."""

import os

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import formats
from tests.release.formats import folders
from tests.release.formats.folders import WIDTH, D, check, only

REPOSITORY = 'gemma-scope-9b-it-res/layer_20/width_16/average_l0_7'


def test_gemma_scope(tmp_path):
  a = folders.arrays()
  folders.gemma_scope(tmp_path / REPOSITORY, a)
  released = only(tmp_path)
  assert released.origin == ('gemma2_9b_it', 20, 'resid_post', None)
  assert released.meta == {'variant': 'jumprelu', 'released_l0': 7}
  check(released, *folders.jumprelu(a, folders.inputs()))


@pytest.mark.parametrize(
    'folder, origin',
    [
        (
            'models--google--gemma-scope-2b-pt-att/snapshots/0a1b/layer_3'
            '/width_16/average_l0_9',
            ('gemma2_2b', 3, 'attn_heads', None),
        ),
        (
            'gemma-scope-2b-pt-transcoders/layer_11/width_16/average_l0_5',
            ('gemma2_2b', 11, 'transcoder', False),
        ),
        (
            'gemma-scope-27b-pt-mlp/layer_0/width_16/average_l0_5',
            ('gemma2_27b', 0, 'mlp_out', None),
        ),
        (
            'mine/mlp_out/layer_4/width_16/average_l0_5_2',
            (None, 4, 'mlp_out', None),
        ),
        ('residuals/best', (None, None, None, None)),
    ],
)
def test_folder_names_of_gemma_scope_state_model_layer_and_site(
    tmp_path, folder, origin
):
  leaf = folders.gemma_scope(tmp_path / folder, folders.arrays())
  # Found from the root and from the innermost folder.
  assert only(tmp_path).origin == only(leaf).origin == origin


def test_the_file_of_the_arrays_is_read_as_its_folder(tmp_path):
  leaf = folders.gemma_scope(tmp_path / REPOSITORY, folders.arrays())
  ((name, released),) = formats.find(leaf / 'params.npz').items()
  assert name == '.' and released.origin == only(leaf).origin
  check(released, *folders.jumprelu(folders.arrays(), folders.inputs()))
  other = tmp_path / 'notes.txt'
  other.touch()
  with pytest.raises(errors.UserError, match=r'notes.txt: neither .* \(params'):
    formats.find(other)


def test_float16_and_compressed_arrays_are_read_in_float32(tmp_path):
  a = {k: v.astype(np.float16) for k, v in folders.arrays().items()}
  (tmp_path / 'sae').mkdir()
  np.savez_compressed(tmp_path / 'sae' / 'params.npz', **a)
  exact = {k: v.astype(np.float32) for k, v in a.items()}
  check(only(tmp_path), *folders.jumprelu(exact, folders.inputs()))


def test_gemma_scope_2_without_a_config(tmp_path):
  a = folders.arrays()
  name = 'gemma-scope-2-1b-pt/attn_out_all/layer_7_width_16_l0_small'
  folders.gemma_scope_2(tmp_path / name, a)
  released = only(tmp_path)
  assert released.origin == ('gemma3_1b', 7, 'attn_heads', None)
  check(released, *folders.jumprelu(a, folders.inputs()))


def test_a_gemma_scope_2_transcoder_adds_its_affine_term(tmp_path):
  a = folders.arrays(d_out=4)
  skip = np.random.default_rng(5).normal(size=(D, 4)).astype(np.float32)
  module = 'model.language_model.layers.9'
  folders.gemma_scope_2(
      tmp_path / 'layer_9_width_16_l0_big_affine',
      a,
      skip=skip,
      config={
          'architecture': 'jump_relu',
          'model_name': 'google/gemma-3-1b-pt',
          'hf_hook_point_in': f'{module}.pre_feedforward_layernorm.output',
          'hf_hook_point_out': f'{module}.post_feedforward_layernorm.output',
          'affine_connection': True,
      },
  )
  released = only(tmp_path)
  assert released.origin == (None, 9, 'transcoder', True)
  assert released.sae.d_out == 4
  x = folders.inputs()
  latents, reconstruction = folders.jumprelu(a, x)
  check(released, latents, reconstruction + x @ skip.astype(np.float64))


def test_a_gemma_scope_2_transcoder_by_its_folders(tmp_path):
  skip = np.eye(D, dtype=np.float32)
  name = 'transcoder_all/layer_2_width_16_l0_medium_affine'
  folders.gemma_scope_2(tmp_path / name, folders.arrays(), skip=skip)
  assert only(tmp_path).origin == (None, 2, 'transcoder', True)


def test_saelens_jumprelu(tmp_path):
  a = folders.arrays()
  folders.saelens(tmp_path / 'sae', a, {'architecture': 'jumprelu'})
  released = only(tmp_path)
  assert released.origin == ('gemma2_2b', 20, 'resid_post', None)
  check(released, *folders.jumprelu(a, folders.inputs()))


def test_saelens_standard_that_subtracts_the_decoder_bias(tmp_path):
  a = folders.arrays()
  del a['threshold']
  # An old file without apply_b_dec_to_input: the bias is subtracted.
  folder = folders.saelens(
      tmp_path / 'sae', a, {'hook_point': 'blocks.5.hook_resid_pre'}
  )
  cfg = (folder / 'cfg.json').read_text()
  cfg = cfg.replace('"apply_b_dec_to_input": false, ', '')
  cfg = cfg.replace('"6.18.0"', 'null').replace('"hook_name"', '"other"')
  (folder / 'cfg.json').write_text(cfg)
  released = only(tmp_path)
  assert released.origin.layer == 4 and released.origin.site == 'resid_post'
  assert released.meta['variant'] == 'relu'
  x = folders.inputs() - a['b_dec']
  check(released, *folders.jumprelu(a, x, threshold=0))


def test_saelens_gated(tmp_path):
  a = folders.arrays()
  rng = np.random.default_rng(1)
  del a['threshold'], a['b_enc']
  for name in ('b_gate', 'b_mag', 'r_mag'):
    a[name] = (rng.normal(size=WIDTH) * 0.3).astype(np.float32)
  folders.saelens(
      tmp_path / 'sae',
      a,
      {'architecture': 'gated', 'reshape_activations': 'hook_z'},
      hook_name='blocks.3.attn.hook_z',
  )
  released = only(tmp_path)
  assert released.origin == ('gemma2_2b', 3, 'attn_heads', None)
  assert released.meta['variant'] == 'gated'
  x = folders.inputs().astype(np.float64)
  gate = x @ a['W_enc'] + a['b_gate'] > 0
  magnitude = np.maximum(x @ (a['W_enc'] * np.exp(a['r_mag'])) + a['b_mag'], 0)
  latents = gate * magnitude
  assert (gate != (latents > 0)).any()
  check(released, latents, latents @ a['W_dec'] + a['b_dec'])


def test_saelens_skip_transcoder(tmp_path):
  a = folders.arrays(d_out=4)
  skip = np.random.default_rng(5).normal(size=(4, D)).astype(np.float32)
  folders.saelens(
      tmp_path / 'sae',
      a | {'W_skip': skip},
      {'architecture': 'jumprelu_skip_transcoder', 'd_out': 4},
      hook_name='blocks.6.ln2.hook_normalized',
      hook_name_out='blocks.6.hook_mlp_out',
  )
  released = only(tmp_path)
  assert released.origin == ('gemma2_2b', 6, 'transcoder', False)
  x = folders.inputs()
  latents, reconstruction = folders.jumprelu(a, x)
  check(released, latents, reconstruction + x @ skip.T.astype(np.float64))


def test_several_formats_in_one_folder_are_sorted_by_number(tmp_path):
  a = folders.arrays()
  folders.gemma_scope(tmp_path / 'layer_10' / 'width_16', a)
  folders.gemma_scope(tmp_path / 'layer_2' / 'width_16', a)
  folders.gemma_scope_2(tmp_path / 'z' / 'layer_0_width_16_l0_big', a)
  folders.saelens(tmp_path / 'y', a, {'architecture': 'jumprelu'})
  assert list(formats.find(tmp_path)) == [
      'y',
      'z/layer_0_width_16_l0_big',
      'layer_2/width_16',
      'layer_10/width_16',
  ]


def test_links_to_folders_are_followed_once(tmp_path):
  folders.gemma_scope(tmp_path / 'elsewhere' / 'sae', folders.arrays())
  root = tmp_path / 'root'
  root.mkdir()
  (root / 'linked').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'elsewhere' / 'loop').symlink_to(root)
  assert list(formats.find(root)) == ['linked/sae']


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
  folders.gemma_scope(tmp_path / 'sae', folders.arrays())
  (tmp_path / 'closed').mkdir()
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('closed'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(errors.UserError, match='closed: cannot be read'):
    formats.find(tmp_path)
