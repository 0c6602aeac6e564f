"""dictionary_learning's classes against plain NumPy, and hostile files."""

import json
import pickle
import zipfile

import numpy as np
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.files import torch_zip
from jumprelu.release import formats
from tests.release.formats import folders
from tests.release.formats.folders import WIDTH, D, check, only


def save(folder, kind, tensors, **fields):
  folder.mkdir(parents=True, exist_ok=True)
  tensors = {k: np.asarray(v, order='C') for k, v in tensors.items()}
  torch_zip.write(folder / 'ae.pt', tensors)
  trainer = {
      'dict_class': kind,
      'lm_name': 'google/gemma-2-2b',
      'layer': 8,
      'submodule_name': 'resid_post_layer_8',
      **fields,
  }
  (folder / 'config.json').write_text(json.dumps({'trainer': trainer}))
  return folder


def linear(a, **others):
  return {
      'encoder.weight': a['W_enc'].T,
      'encoder.bias': a['b_enc'],
      'decoder.weight': a['W_dec'].T,
      **others,
  }


def buffers(threshold=0.3, k=4):
  return {'threshold': np.float32(threshold), 'k': np.int32(k)}


def test_jumprelu(tmp_path):
  a = folders.arrays()
  save(tmp_path, 'JumpReluAutoEncoder', a)
  released = only(tmp_path)
  assert released.origin == ('gemma2_2b', 8, 'resid_post', None)
  check(released, *folders.jumprelu(a, folders.inputs()))
  ((_, same),) = formats.find(tmp_path / 'ae.pt').items()
  assert same.digest() == released.digest()


def test_a_folder_with_checkpoints_is_not_taken_for_a_run(tmp_path):
  save(tmp_path, 'JumpReluAutoEncoder', folders.arrays())
  (tmp_path / 'checkpoints').mkdir()
  assert only(tmp_path).origin.layer == 8
  (sae,) = jumprelu.load(tmp_path).values()
  assert sae.layer == 8


def test_the_norms_of_an_autoencoders_decoder_move_into_its_encoder(tmp_path):
  a = folders.arrays()
  norms = np.linspace(0.5, 2, WIDTH, dtype=np.float32)
  wide = a['W_dec'] * norms[:, None]
  tensors = linear(a | {'W_dec': wide}, bias=a['b_dec'])
  save(tmp_path, 'AutoEncoder', tensors)
  # Without the change of norms, the SAE has the same reconstruction.
  x = folders.inputs() - a['b_dec']
  latents, _ = folders.jumprelu(a, x, threshold=0)
  check(only(tmp_path), latents * norms, latents @ wide + a['b_dec'])


def test_autoencoder_new(tmp_path):
  a = folders.arrays()
  a['W_dec'] = a['W_dec'] * np.float32(1.7)
  save(tmp_path, 'AutoEncoderNew', linear(a, **{'decoder.bias': a['b_dec']}))
  reference = folders.jumprelu(a, folders.inputs(), threshold=0)
  check(only(tmp_path), *reference)


def test_gated(tmp_path):
  a = folders.arrays()
  rng = np.random.default_rng(1)
  names = ('gate_bias', 'mag_bias', 'r_mag')
  arrays = {n: (rng.normal(size=WIDTH) * 0.3).astype(np.float32) for n in names}
  tensors = linear(a, decoder_bias=a['b_dec'], **arrays)
  del tensors['encoder.bias']
  save(tmp_path, 'GatedAutoEncoder', tensors)
  z = (folders.inputs() - a['b_dec']).astype(np.float64) @ a['W_enc']
  gate = z + arrays['gate_bias'] > 0
  latents = gate * np.maximum(
      np.exp(arrays['r_mag']) * z + arrays['mag_bias'], 0
  )
  assert (gate != (latents > 0)).any()
  check(only(tmp_path), latents, latents @ a['W_dec'] + a['b_dec'])


def test_topk(tmp_path):
  a = folders.arrays()
  tensors = linear(a, b_dec=a['b_dec'], **buffers(threshold=-1))
  save(tmp_path, 'AutoEncoderTopK', tensors)
  z = (folders.inputs() - a['b_dec']).astype(np.float64) @ a['W_enc']
  z = np.maximum(z + a['b_enc'], 0)
  kth = np.sort(z, axis=1)[:, -4:-3]
  latents = np.where(z >= kth, z, 0)
  check(only(tmp_path), latents, latents @ a['W_dec'] + a['b_dec'])
  # An older file without k, which its config has.
  save(
      tmp_path / 'old',
      'AutoEncoderTopK',
      {name: x for name, x in tensors.items() if name != 'k'},
      k=4,
  )
  assert only(tmp_path / 'old').params['k'] == 4


@pytest.mark.parametrize('kind', ['BatchTopKSAE', 'MatryoshkaBatchTopKSAE'])
def test_batch_topk_has_its_threshold(tmp_path, kind):
  a = folders.arrays()
  tensors = linear(a, b_dec=a['b_dec'], **buffers())
  if kind.startswith('Matryoshka'):
    sizes = np.asarray([4, WIDTH - 4], np.int64)
    tensors = a | buffers() | {'group_sizes': sizes}
  save(tmp_path, kind, tensors)
  x = folders.inputs() - a['b_dec']
  check(only(tmp_path), *folders.jumprelu(a, x, threshold=0.3))


class Hostile:
  """Creates a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def test_a_hostile_pickle_is_refused_in_one_line_and_not_run(tmp_path):
  folder = save(tmp_path / 'sae', 'JumpReluAutoEncoder', folders.arrays())
  mark = tmp_path / 'mark'
  with zipfile.ZipFile(folder / 'ae.pt', 'w') as archive:
    data = pickle.dumps({'W_enc': Hostile(mark)}, protocol=2)
    archive.writestr('archive/data.pkl', data)
  with pytest.raises(errors.DataError, match='ae.pt: .*not run|was run') as e:
    formats.find(tmp_path)
  assert '\n' not in str(e.value) and not mark.exists()


@pytest.mark.parametrize(
    'change, reason',
    [
        ({'W_dec': np.zeros((WIDTH, D + 1), np.float32)}, 'tensor W_dec has'),
        ({'threshold': np.float32(1)}, 'tensor threshold has shape'),
        ({'W_enc': np.full((D, WIDTH), np.nan, np.float32)}, 'non-finite'),
        ({'extra': np.zeros(3, np.float32)}, 'unexpected tensor extra'),
        ({'b_dec': None}, 'tensor b_dec is missing'),
        ({'W_enc': np.zeros((0, WIDTH), np.float32)}, 'wanted two axes'),
    ],
)
def test_invalid_tensors_are_named(tmp_path, change, reason):
  tensors = folders.arrays() | change
  tensors = {name: x for name, x in tensors.items() if x is not None}
  save(tmp_path, 'JumpReluAutoEncoder', tensors)
  with pytest.raises(errors.DataError, match=f'ae.pt: .*{reason}'):
    formats.find(tmp_path)


@pytest.mark.parametrize(
    'fields, reason',
    [
        ({'dict_class': 'CrossCoder'}, "dict_class is 'CrossCoder', wanted"),
        ({'dict_class': ['AutoEncoder']}, 'dict_class is'),
    ],
)
def test_other_classes_are_named(tmp_path, fields, reason):
  folder = save(tmp_path, 'AutoEncoder', folders.arrays())
  config = {'trainer': fields}
  (folder / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.DataError, match=f'config.json: {reason}'):
    formats.find(tmp_path)
