"""Written releases: names, files and exact values."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
from matplotlib import image
import numpy as np
import pytest

from jumprelu import errors, saes
from jumprelu.release import formats, verify, write
from jumprelu.release import members as members_lib
from tests import small_release


def test_a_release_holds_the_documented_files(tmp_path):
  out = small_release.write(tmp_path / 'release')
  files = sorted(
      p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file()
  )
  folder = 'resid_post/layer_2/width_12/average_l0'
  transcoder = 'transcoder/layer_2/width_10/average_l0_4'
  member_files = [
      'config.json', 'firing_frequency.npy', 'params.npz', 'results.json',
      'test_vectors.npz',
  ]  # fmt: skip
  assert files == sorted(
      ['README.md', 'frontier.png', 'results.jsonl', 'results.parquet']
      + ['suite.json']
      + [f'{folder}_3/{name}' for name in member_files]
      + [f'{folder}_3_2/{name}' for name in member_files]
      + [f'{transcoder}/{name}' for name in member_files]
  )


def test_the_card_shows_the_frontier_and_its_digest_is_listed(tmp_path):
  out = small_release.write(tmp_path / 'release')
  assert '](frontier.png)\n\n| SAE' in (out / 'README.md').read_text()
  pixels = image.imread(out / 'frontier.png')
  assert (pixels[..., :3].min(axis=-1) < 0.9).mean() > 0.005
  (out / 'frontier.png').write_bytes(b'another')
  with pytest.raises(errors.DataError, match='frontier.png: does not match'):
    verify.verify_release(out)


def test_a_release_whose_saes_have_no_l0_has_no_frontier(tmp_path):
  member = small_release.make_member(l0=0.0)
  out = small_release.write(tmp_path / 'release', [member])
  assert not (out / 'frontier.png').exists()
  assert 'frontier' not in (out / 'README.md').read_text()


def test_released_arrays_are_read_back_bit_for_bit(tmp_path):
  members = small_release.make_members()
  out = small_release.write(tmp_path / 'release', members)
  paths = write.member_paths(members)
  assert sorted(paths) == sorted(members_lib.list_members(out))
  for path, member in zip(paths, members, strict=True):
    sae, params, config = members_lib.load_member(out / path)
    assert sae == member.sae
    assert params.keys() == member.params.keys()
    for name, value in member.params.items():
      assert params[name].dtype == jnp.float32
      np.testing.assert_array_equal(
          np.asarray(params[name]).view(np.uint32),
          np.asarray(value).view(np.uint32),
      )
    assert config['sparsity_coefficient'] == member.sparsity_coefficient
    assert config['input_scale'] == member.input_scale


def test_two_releases_of_one_run_have_the_same_bytes(tmp_path):
  first = small_release.write(tmp_path / 'a')
  second = small_release.write(tmp_path / 'b')
  for path in first.rglob('*'):
    if path.is_file() and path.suffix != '.parquet':
      other = second / path.relative_to(first)
      assert path.read_bytes() == other.read_bytes(), path


def test_a_released_file_reads_as_a_plain_gemma_scope_npz(tmp_path):
  """Reads the file with NumPy alone, as users of Gemma Scope do."""
  trained, params = small_release.trained_sae(seed=0)
  scale = small_release.SCALE
  out = small_release.write(tmp_path / 'release')
  x = np.random.default_rng(7).normal(size=(64, trained.d_in)) * scale

  path = out / 'resid_post/layer_2/width_12/average_l0_3/params.npz'
  with np.load(path, allow_pickle=False) as p:
    assert sorted(p.files) == ['W_dec', 'W_enc', 'b_dec', 'b_enc', 'threshold']
    assert p['W_enc'].shape == (trained.d_in, trained.width)
    assert p['W_dec'].shape == (trained.width, trained.d_out)
    assert all(p[name].dtype == np.float32 for name in p.files)
    np.testing.assert_allclose(np.linalg.norm(p['W_dec'], axis=1), 1, atol=1e-6)
    pre_acts = x @ p['W_enc'] + p['b_enc']
    latents = np.maximum(pre_acts, 0) * (pre_acts > p['threshold'])
    reconstruction = latents @ p['W_dec'] + p['b_dec']

  # The SAE as it was trained: on x / C, decoder bias subtracted, log threshold.
  w = {k: np.asarray(v, np.float64) for k, v in params.items()}
  z = (x / scale - w['b_dec']) @ w['W_enc'] + w['b_enc']
  f = np.where(z > np.exp(w['log_threshold']), z, 0)
  assert 0 < (f > 0).mean() < 1
  np.testing.assert_allclose(latents, scale * f, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
      reconstruction,
      scale * (f @ w['W_dec'] + w['b_dec']),
      rtol=1e-4,
      atol=1e-4,
  )


def test_a_released_transcoder_maps_raw_inputs_to_raw_targets(tmp_path):
  trained, params = small_release.trained_transcoder()
  c_x, c_y = small_release.SCALE, small_release.TARGET_SCALE
  out = small_release.write(tmp_path / 'release')
  sae, released, config = members_lib.load_member(
      out / 'transcoder/layer_2/width_10/average_l0_4'
  )
  x = np.random.default_rng(8).normal(size=(64, trained.d_in)) * c_x
  x = x.astype(np.float32)
  w = {k: np.asarray(v, np.float64) for k, v in params.items()}
  z = x / c_x @ w['W_enc'] + w['b_enc']
  f = np.where(z > np.exp(w['log_threshold']), z, 0)
  latents = sae.encode(released, jnp.asarray(x))
  np.testing.assert_allclose(latents, c_y * f, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
      sae.decode(released, latents),
      c_y * (f @ w['W_dec'] + w['b_dec']),
      rtol=1e-4,
      atol=1e-4,
  )
  assert config['input_gain'] is False
  assert config['hooks']['input']['jumprelu'] == 'mlp_in / input gain'
  assert config['hooks']['target']['jumprelu'] == 'mlp_out'


def test_peer_defect_11_a_release_acts_on_raw_activations(tmp_path):
  """Peers compared scaled with unscaled activations (SAELens #518)."""
  out = small_release.write(tmp_path / 'release')
  folder = out / 'resid_post/layer_2/width_12/average_l0_3'
  member = small_release.make_members()[0]
  with np.load(folder / 'test_vectors.npz', allow_pickle=False) as vectors:
    np.testing.assert_array_equal(vectors['x'], member.inputs)
    # E||x||^2 = C^2: the stored inputs are raw, not divided by C.
    norm = np.sqrt(np.square(vectors['x']).sum(axis=1).mean())
    assert 0.5 * small_release.SCALE < norm / np.sqrt(member.sae.d_in)


def test_peer_defect_12_a_member_is_usable_without_its_run(tmp_path):
  """Peers' checkpoints lost the norm factor (SAELens #381).

  Ours is folded into the arrays and stored in config.json.
  """
  out = small_release.write(tmp_path / 'release')
  folder = out / 'resid_post/layer_2/width_12/average_l0_3'
  config = json.loads((folder / 'config.json').read_text())
  trained, params = small_release.trained_sae(seed=0)
  c = config['input_scale']
  assert c == small_release.SCALE
  with np.load(folder / 'params.npz', allow_pickle=False) as released:
    np.testing.assert_allclose(
        released['threshold'], c * np.exp(params['log_threshold']), rtol=1e-6
    )
    np.testing.assert_allclose(
        released['b_dec'], c * np.asarray(params['b_dec']), rtol=1e-6
    )
    np.testing.assert_array_equal(released['W_dec'].shape, (12, trained.d_out))


def test_config_has_all_settings_to_reproduce_the_member(tmp_path):
  out = small_release.write(tmp_path / 'release')
  config = json.loads(
      (out / 'transcoder/layer_2/width_10/average_l0_4/config.json').read_text()
  )
  assert config['training'] == small_release.PROVENANCE.training
  assert config['corpus'] == small_release.PROVENANCE.corpus
  assert config['versions']['jax'] == jax.__version__
  assert config['seed'] == 5
  assert config['steps'] == 7
  assert config['target_scale'] == small_release.TARGET_SCALE
  assert (
      config['hooks']['input']['transformer_lens']
      == 'blocks.2.ln2.hook_normalized'
  )
  assert config['versions'].keys() >= {'jumprelu', 'python', 'jax', 'numpy'}


def test_rows_have_paths_and_are_stored_unchanged(tmp_path):
  members = small_release.make_members()
  out = tmp_path / 'release'
  rows = write.write_release(members, out, provenance=small_release.PROVENANCE)
  stored = [
      json.loads(line)
      for line in (out / 'results.jsonl').read_text().splitlines()
  ]
  assert stored == rows
  for row in rows:
    assert (out / row['path'] / 'params.npz').is_file()
    assert json.loads((out / row['path'] / 'results.json').read_text()) == row
  from pyarrow import parquet

  assert parquet.read_table(out / 'results.parquet').to_pylist() == rows


def test_a_release_replaces_an_older_one_of_the_same_run(tmp_path):
  members = small_release.make_members()
  out = small_release.write(tmp_path / 'release', members[:1])
  small_release.write(out, members)
  assert len(members_lib.list_members(out)) == 3
  assert [p.name for p in tmp_path.iterdir()] == ['release']


def test_a_release_replaces_no_other_files(tmp_path):
  other_run = small_release.write(tmp_path / 'other')
  provenance = small_release.provenance(run='01' * 32)
  with pytest.raises(errors.UserError, match='another run'):
    small_release.write(other_run, provenance=provenance)
  (tmp_path / 'thesis').mkdir()
  (tmp_path / 'thesis/chapter.tex').write_text('x')
  with pytest.raises(errors.UserError, match='not a release'):
    small_release.write(tmp_path / 'thesis')
  release = small_release.write(tmp_path / 'release')
  (release / 'notes.txt').write_text('mine')
  with pytest.raises(errors.UserError, match='notes.txt'):
    small_release.write(release)
  assert (release / 'notes.txt').read_text() == 'mine'
  (tmp_path / 'file').write_text('x')
  with pytest.raises(errors.UserError, match='not a directory'):
    small_release.write(tmp_path / 'file')


def test_a_faulty_member_leaves_no_files(tmp_path):
  members = small_release.make_members()
  params = dict(members[0].params)
  params['b_enc'] = params['b_enc'].at[3].set(jnp.nan)
  broken = small_release.replace(members[0], params=params)
  with pytest.raises(errors.DataError, match='b_enc has 1 non-finite'):
    small_release.write(tmp_path / 'release', [broken])
  assert not list(tmp_path.iterdir())


def test_non_finite_numbers_are_null_in_json(tmp_path):
  member = small_release.make_members()[0]
  row = dict(member.results) | {'fvu': float('nan')}
  out = small_release.write(
      tmp_path / 'release', [small_release.replace(member, results=row)]
  )
  assert json.loads((out / 'results.jsonl').read_text())['fvu'] is None


# bfloat16 is the default matmul precision of a TPU.
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_every_variant_of_the_table_can_be_released(tmp_path, precision):
  kinds = [(variant, {}) for variant in saes.VARIANTS]
  for variant, fields in [*kinds, ('gated', {'tied': False})]:
    member = small_release.make_member(variant=variant, **fields)
    with jax.default_matmul_precision(precision):
      out = small_release.write(tmp_path / f'{variant}{len(fields)}', [member])
    assert members_lib.list_members(out)


def test_the_default_precision_changes_no_byte_of_a_release(tmp_path):
  for variant in ('topk', 'gated'):
    member = small_release.make_member(variant=variant)
    first = small_release.write(tmp_path / f'{variant}_a', [member])
    with jax.default_matmul_precision('bfloat16'):
      second = small_release.write(tmp_path / f'{variant}_b', [member])
    for path in first.rglob('*.npz'):
      other = second / path.relative_to(first)
      assert path.read_bytes() == other.read_bytes(), path


def test_a_member_with_two_encoders_is_released_unconverted(tmp_path):
  member = small_release.make_member(variant='gated', tied=False)
  out = small_release.write(tmp_path / 'release', [member])
  ((path, released),) = formats.find(out).items()
  assert path.startswith('variants/gated/resid_post/')
  assert released.sae == member.sae and released.meta['variant'] == 'gated'
  params = {k: jnp.asarray(v) for k, v in released.params.items()}
  assert released.sae.to_jumprelu(params) is None

  p = {k: np.float64(v) for k, v in params.items()}
  x = np.float64(member.inputs)
  gate, magnitude = x @ p['W_enc'] + p['b_enc'], x @ p['W_mag'] + p['b_mag']
  latents = np.where((gate > 0) & (magnitude > 0), magnitude, 0)
  assert ((magnitude > 0) != (gate > 0)).any()
  np.testing.assert_allclose(
      released.sae.encode(params, jnp.asarray(member.inputs)),
      latents,
      atol=1e-4,
  )

  def damage(arrays):
    arrays['W_mag'] += 0.1

  small_release.change_arrays(out, damage, folder=path)
  with pytest.raises(errors.DataError, match='latents are not those of'):
    verify.verify_release(out)


def test_a_skip_transcoder_is_released_loaded_and_verified(tmp_path):
  *_, member = small_release.make_members()
  sae = dataclasses.replace(member.sae, skip=True)
  rng = np.random.default_rng(4)
  skip = rng.normal(size=(sae.d_in, sae.d_out)).astype(np.float32)
  params = dict(member.params) | {'W_skip': jnp.asarray(skip)}
  released = small_release.replace(member, sae=sae, params=params)
  out = small_release.write(tmp_path / 'release', [released])
  (path,) = members_lib.list_members(out)
  loaded, arrays, _ = members_lib.load_member(out / path)
  assert loaded == sae
  np.testing.assert_array_equal(arrays['W_skip'], skip)
  with np.load(out / path / 'test_vectors.npz') as vectors:
    expected = vectors['latents'] @ np.asarray(arrays['W_dec'])
    expected += np.asarray(arrays['b_dec']) + vectors['x'] @ skip
    np.testing.assert_allclose(
        vectors['reconstruction'], expected, rtol=1e-4, atol=1e-4
    )

  def other(values):
    values['W_skip'][0, 0] += 0.01

  small_release.change_arrays(out, other, folder=path)
  with pytest.raises(errors.DataError, match='reconstruction is not that of'):
    verify.verify_release(out)


def test_the_old_release_is_kept_if_the_new_one_cannot_be_renamed(
    tmp_path, monkeypatch
):
  out = small_release.write(tmp_path / 'release')
  before = (out / 'suite.json').read_bytes()
  rename = pathlib.Path.rename

  def fail(path, target):
    if path.name == 'new':
      raise OSError('quota exceeded')
    return rename(path, target)

  monkeypatch.setattr(pathlib.Path, 'rename', fail)
  with pytest.raises(OSError, match='quota'):
    small_release.write(out)
  monkeypatch.undo()
  assert (out / 'suite.json').read_bytes() == before
  verify.verify_release(out)


def test_a_latent_whose_decoder_row_is_zero_is_released_and_verified(tmp_path):
  member = small_release.make_member()
  W_dec = np.array(member.params['W_dec'])
  W_dec[4] = 0
  params = dict(member.params) | {'W_dec': jnp.asarray(W_dec)}
  out = small_release.write(
      tmp_path / 'release', [dataclasses.replace(member, params=params)]
  )
  verify.verify_release(out)
