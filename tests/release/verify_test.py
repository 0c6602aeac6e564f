"""Verification refuses and names each planted fault."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.files import digests, json_files
from jumprelu.release import formats, members, verify
from tests import small_release
from tests.small_release import FOLDER, change_arrays, change_json, reseal


@pytest.fixture(scope='session')
def sound(tmp_path_factory):
  return small_release.write(tmp_path_factory.mktemp('verify') / 'release')


@pytest.fixture
def out(sound, tmp_path):
  return pathlib.Path(shutil.copytree(sound, tmp_path / 'release'))


def refused(out, match):
  with pytest.raises(errors.DataError, match=match) as caught:
    verify.verify_release(out)
  assert '\n' not in str(caught.value)
  assert caught.value.exit_code == 65


def test_a_sound_release_passes_with_a_summary(out):
  summary = verify.verify_release(out)
  assert (summary.members, summary.latents) == (3, 34)
  assert summary.files == 20
  assert str(summary).startswith('3 members, 34 latents, 20 files')


def test_recomputed_digests_of_a_sound_release_pass(out):
  reseal(out)
  verify.verify_release(out)


@pytest.mark.parametrize('where', [0.3, 0.6, 0.9])
def test_a_flipped_byte_of_params(out, where):
  path = out / FOLDER / 'params.npz'
  data = bytearray(path.read_bytes())
  data[int(len(data) * where)] ^= 1
  path.write_bytes(data)
  refused(out, 'average_l0_3/params.npz')


@pytest.mark.parametrize(
    'name', ['test_vectors.npz', 'firing_frequency.npy', 'results.json']
)
def test_a_flipped_byte_of_any_other_file(out, name):
  path = out / FOLDER / name
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  refused(out, f'average_l0_3/{name}')


def test_a_flipped_bit_anywhere_in_params_is_refused(out):
  """Checks that the digest refuses bits that no other check refuses."""
  path = out / FOLDER / 'params.npz'
  sound = path.read_bytes()
  for i in range(0, len(sound), 97):
    path.write_bytes(sound[:i] + bytes([sound[i] ^ 4]) + sound[i + 1 :])
    with pytest.raises(errors.DataError, match='params.npz'):
      verify.verify_release(out)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_non_finite_number(out, value):
  change_arrays(out, lambda a: a['W_enc'].__setitem__((2, 5), value))
  fault = r'W_enc has 1 non-finite values, the first at \(2, 5\)'
  refused(out, fault)
  with pytest.raises(errors.DataError, match=fault):
    formats.find(out)


def test_a_decoder_row_that_is_not_unit(out):
  change_arrays(out, lambda a: a['W_dec'].__setitem__(4, a['W_dec'][4] * 1.001))
  refused(out, 'W_dec row 4 has norm 1.001, not 1')


def test_rounding_of_a_unit_row_passes(out):
  change_arrays(
      out, lambda a: a['W_dec'].__setitem__(4, a['W_dec'][4] * 1.000002)
  )
  verify.verify_release(out)


@pytest.mark.parametrize('value', [0.0, -0.5])
def test_a_threshold_that_is_not_positive(out, value):
  change_arrays(out, lambda a: a['threshold'].__setitem__(7, value))
  refused(out, f'threshold of latent 7 is {value:g}, must be > 0')


def test_a_converted_variant_may_have_a_zero_threshold(out):
  folder = out / FOLDER
  config = json_files.read_json(folder / 'config.json')
  config['converted_from'] = 'relu'
  with np.load(folder / 'params.npz') as stored:
    params = {k: stored[k] for k in stored.files}
  params['threshold'][7] = 0.0
  with np.load(folder / 'test_vectors.npz') as stored:
    x = stored['x']
  z = x @ params['W_enc'] + params['b_enc']
  f = np.maximum(z, 0) * (z > params['threshold'])
  vectors = {
      'x': x, 'latents': f, 'reconstruction': f @ params['W_dec']
      + params['b_dec'],
  }  # fmt: skip
  np.savez(folder / 'params.npz', **params)
  np.savez(folder / 'test_vectors.npz', **vectors)
  json_files.write_json(folder / 'config.json', config)
  reseal(out)
  verify.verify_release(out)
  change_arrays(out, lambda a: a['threshold'].__setitem__(7, -1e-9))
  refused(out, 'must be >= 0')


@pytest.mark.parametrize(
    'name', ['params.npz', 'config.json', 'results.json', 'test_vectors.npz']
)
def test_a_missing_file(out, name):
  (out / FOLDER / name).unlink()
  refused(out, f'average_l0_3/{name}: listed in suite.json, but missing')


def test_a_missing_file_that_is_no_longer_listed(out):
  (out / FOLDER / 'test_vectors.npz').unlink()
  suite = json_files.read_json(out / 'suite.json')
  for member in suite['members']:
    if member['path'] == FOLDER:
      del member['files']['test_vectors.npz']
  json_files.write_json(out / 'suite.json', suite)
  refused(out, 'lacks test_vectors.npz')


def test_an_l0_that_is_too_large_for_a_float(out):
  change_json(out, lambda r: r.update(l0=10**400), file='results.json')
  refused(out, 'config.json or results.json')


def test_an_extra_file(out):
  (out / FOLDER / 'cfg.pkl').write_bytes(b'')
  refused(out, 'cfg.pkl: not listed in suite.json')


def test_a_renamed_folder(out):
  (out / FOLDER).rename(out / FOLDER.replace('l0_3', 'l0_30'))
  refused(out, 'average_l0_3/.*: listed in suite.json, but missing')


@pytest.mark.parametrize(
    'other',
    [
        'resid_post/layer_2/width_12/average_l0_30',
        'resid_post/layer_3/width_12/average_l0_3',
        'resid_post/layer_2/width_16k/average_l0_3',
        'mlp_out/layer_2/width_12/average_l0_3',
        'resid_post/layer_2/width_12/average_l0_3_1',
    ],
)
def test_a_renamed_folder_with_a_renamed_listing(out, other):
  (out / other).parent.mkdir(parents=True, exist_ok=True)
  (out / FOLDER).rename(out / other)
  text = json.dumps(json_files.read_json(out / 'suite.json'))
  (out / 'suite.json').write_text(text.replace(f'"{FOLDER}"', f'"{other}"'))
  refused(out, f'{other}: should be named {FOLDER}')


def test_a_scale_that_was_not_folded(out):
  """Refuses arrays of the scaled SAE, which only test vectors reveal."""

  def unfold(arrays):
    for name in ('b_enc', 'threshold', 'b_dec'):
      arrays[name] /= np.float32(small_release.SCALE)

  change_arrays(out, unfold)
  refused(out, 'latents are not those of params.npz')


def test_a_bias_that_is_not_the_trained_one(out):
  change_arrays(out, lambda a: a['b_dec'].__iadd__(np.float32(1e-2)))
  refused(out, 'reconstruction is not that of params.npz')


def test_test_vectors_of_another_member(out):
  shutil.copy(out / f'{FOLDER}_2/test_vectors.npz', out / FOLDER)
  reseal(out)
  refused(out, 'latents are not those of params.npz')


# Two variants that equal no JumpReLU SAE, and one that does.
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
    'variant, fields', [('topk', {}), ('gated', {'tied': False}), ('gated', {})]
)
def test_one_wrong_latent_of_any_variant(tmp_path, variant, fields, precision):
  member = small_release.make_member(variant=variant, **fields)
  out = small_release.write(tmp_path / 'release', [member])
  (folder,) = members.list_members(out)

  def change(arrays):
    active = np.argwhere(arrays['latents'] > 0)
    arrays['latents'][tuple(active[0])] *= 1.001

  with jax.default_matmul_precision(precision):
    verify.verify_release(out)
    change_arrays(out, change, 'test_vectors.npz', folder=folder)
    refused(out, 'test_vectors.npz: 1 latents are not those of params.npz')


def test_a_config_of_an_unknown_variant(out):
  change_json(out, lambda c: c.update(variant='mystery'))
  refused(out, 'config.json: describes no known SAE')


def test_a_config_without_a_required_field(out):
  change_json(out, lambda c: c.pop('sparsity_coefficient'))
  refused(out, 'config.json: lacks sparsity_coefficient')


def test_a_config_with_another_files_digest(out):
  config = json_files.read_json(out / FOLDER / 'config.json')
  config['sha256'] = '0' * 64
  json_files.write_json(out / FOLDER / 'config.json', config)
  suite = json_files.read_json(out / 'suite.json')
  for member in suite['members']:
    if member['path'] == FOLDER:
      member['files']['config.json'] = digests.sha256_of(
          out / FOLDER / 'config.json'
      )
  json_files.write_json(out / 'suite.json', suite)
  refused(out, 'sha256 is not that of params.npz')


def test_a_firing_frequency_that_is_no_share(out):
  np.save(out / FOLDER / 'firing_frequency.npy', np.full(12, 1.5, np.float32))
  reseal(out)
  refused(out, 'firing_frequency.npy: must hold 12 shares')


def test_a_symlink(out, tmp_path):
  path = out / FOLDER / 'params.npz'
  path.rename(tmp_path / 'elsewhere.npz')
  path.symlink_to(tmp_path / 'elsewhere.npz')
  refused(out, 'params.npz: a link')


@pytest.mark.parametrize(
    'path', ['../outside', '/etc', 'a/../../b', 'a//b', '', 'a\\b', '.hidden']
)
def test_a_path_that_could_leave_the_release(out, path):
  suite = json_files.read_json(out / 'suite.json')
  suite['members'][0]['path'] = path
  json_files.write_json(out / 'suite.json', suite)
  refused(out, 'unsafe path')


@pytest.mark.parametrize(
    'text', ['', '[]', '{', '{}', '{"members": []}', '{"members": [{}]}',
             '{"members": [], "files": {}}', '[' * 100000],
)  # fmt: skip
def test_an_invalid_suite_json(out, text):
  (out / 'suite.json').write_text(text)
  refused(out, 'suite.json')


def test_an_edited_card_passes(out):
  (out / 'README.md').write_text('Mine now.')
  verify.verify_release(out)


def test_a_missing_directory_is_missing_input(tmp_path):
  with pytest.raises(errors.MissingInputError, match='nowhere') as caught:
    verify.verify_release(tmp_path / 'nowhere')
  assert caught.value.exit_code == 66
  refused(tmp_path, 'because it has no suite.json')
