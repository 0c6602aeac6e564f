"""TopK and BatchTopK folders of SAELens, as its versions write them."""

import json

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.release import formats
from tests.release.formats import folders
from tests.release.formats.folders import check, only

_K = 5


def arrays(*, unit=True):
  """Returns a TopK SAE; its decoder rows have unit norm only if `unit`."""
  a = folders.arrays()
  del a['threshold']
  # Lowered so that some rows have fewer than k positive pre-activations.
  a['b_enc'] = a['b_enc'] - np.float32(1.5)
  if not unit:
    norms = np.linspace(0.2, 3.0, folders.WIDTH, dtype=np.float32)
    a['W_dec'] = a['W_dec'] * norms[:, None]
  return a


def selected(a, x, *, rescale):
  """Returns the k largest latents of each row, at least 0, and their decoding."""
  norms = np.linalg.norm(np.float64(a['W_dec']), axis=1)
  z = np.float64(x) @ a['W_enc'] + a['b_enc']
  z = z * norms if rescale else z
  kth = np.sort(z, axis=1)[:, -_K][:, None]
  latents = np.where(z >= kth, np.maximum(z, 0), 0)
  rows = a['W_dec'] / norms[:, None] if rescale else a['W_dec']
  return latents, latents @ rows + a['b_dec']


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('subtracts', [False, True])
def test_topk(tmp_path, rescale, subtracts):
  a = arrays(unit=False)
  config = {
      'architecture': 'topk',
      'k': _K,
      'rescale_acts_by_decoder_norm': rescale,
      'apply_b_dec_to_input': subtracts,
  }
  folders.saelens(tmp_path / 'sae', a, config)
  released = only(tmp_path)
  assert released.sae.variant == released.meta['variant'] == 'topk'
  assert released.origin == ('gemma2_2b', 20, 'resid_post', None)
  x = folders.inputs() - subtracts * a['b_dec']
  latents, reconstruction = selected(a, x, rescale=rescale)
  counts = (latents > 0).sum(axis=1)
  assert counts.min() < _K == counts.max()
  # The norms change which latents are the largest.
  other, _ = selected(a, x, rescale=not rescale)
  assert ((latents > 0) != (other > 0)).any()
  check(released, latents, reconstruction)


@pytest.mark.parametrize('name', ['activation_fn', 'activation_fn_str'])
def test_topk_before_version_6_is_an_activation_function(tmp_path, name):
  a = arrays()
  folder = folders.saelens(tmp_path / 'sae', a, {})
  cfg = json.loads((folder / 'cfg.json').read_text())
  cfg |= cfg.pop('metadata') | {'sae_lens_version': None}
  cfg |= {name: 'topk', 'activation_fn_kwargs': {'k': _K}}
  (folder / 'cfg.json').write_text(json.dumps(cfg))
  released = only(tmp_path)
  assert released.sae.variant == 'topk'
  check(released, *selected(a, folders.inputs(), rescale=False))


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize(
    'architecture, variant',
    [
        ('batchtopk', 'batch_topk'),
        ('matryoshka_batchtopk', 'matryoshka_batch_topk'),
    ],
)
def test_a_checkpoint_of_batch_topk_has_its_threshold(
    tmp_path, architecture, variant, rescale
):
  a = arrays(unit=False)
  threshold = np.float64(0.4)
  config = {
      'architecture': architecture,
      'k': 2.5,
      'topk_threshold_lr': 0.01,
      'rescale_acts_by_decoder_norm': rescale,
  }
  stored = a | {'topk_threshold': np.asarray(threshold)}
  folders.saelens(tmp_path / 'sae', stored, config)
  released = only(tmp_path)
  assert released.meta['variant'] == variant
  assert released.sae.variant == 'jumprelu'
  norms = np.linalg.norm(np.float64(a['W_dec']), axis=1) if rescale else 1.0
  z = (np.float64(folders.inputs()) @ a['W_enc'] + a['b_enc']) * norms
  latents = np.where(z > threshold, z, 0)
  check(released, latents, latents / norms @ a['W_dec'] + a['b_dec'])


def test_batch_topk_written_for_use_is_a_jumprelu(tmp_path):
  a = arrays() | {'threshold': np.full(folders.WIDTH, 0.4, np.float32)}
  folders.saelens(
      tmp_path / 'sae',
      a,
      {'architecture': 'jumprelu'},
      training_architecture='batchtopk',
  )
  check(only(tmp_path), *folders.jumprelu(a, folders.inputs()))


def test_a_checkpoint_without_its_threshold_is_named(tmp_path):
  config = {'architecture': 'batchtopk', 'k': 2.5}
  folders.saelens(tmp_path / 'sae', arrays(), config)
  with pytest.raises(errors.DataError, match='topk_threshold is missing'):
    formats.find(tmp_path)
