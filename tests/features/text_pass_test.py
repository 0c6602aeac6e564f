"""Tests of the pass over text: its firings on one device, many, and selected."""

import numpy as np
import pytest

from jumprelu import lm, sharding
from jumprelu.data import packing
from jumprelu.evals import corpus_passes, jitted
from jumprelu.evals import text as text_lib
from jumprelu.features import segments, text_pass
from tests import small_evaluation as small
from tests.lm import tiny

NAMES = ('random', 'second', 'heads', 'first layer', 'zero')


def _firings(folder, mesh=None):
  """Returns the rows, and the latents of each member as dense arrays."""
  members = [small.MEMBERS[name]() for name in NAMES]
  placed = [
      corpus_passes.place(m.sae, m.params, m.reads, mesh=mesh) for m in members
  ]
  forward = jitted.forward(
      tiny.model(), lm.all_taps(m.reads for m in members), mesh=mesh
  )
  text = text_lib.sample(small.HELD_OUT, 10_000, sequences=4, mesh=mesh)
  text_pass.run(forward, placed, text=text, folder=folder)
  rows, latents = [], [[] for _ in members]
  for segment in segments.read_all(folder):
    rows.append(segment.rows)
    assert np.array_equal(segment.keep, packing.keep_mask(segment.tokens))
    for i, member in enumerate(members):
      firings = segment.firings(i)
      dense = np.zeros((segment.tokens.size, member.sae.width), np.float32)
      dense[firings.at, firings.latents] = firings.values
      latents[i].append(dense)
  return np.concatenate(rows), [np.concatenate(parts) for parts in latents]


@pytest.fixture(scope='module')
def expected(tmp_path_factory):
  return _firings(tmp_path_factory.mktemp('one'))


def test_firings_are_the_latents_of_kept_tokens(expected):
  rows, latents = expected
  assert sorted(rows) == list(range(len(small.HELD_OUT)))
  member = small.MEMBERS['random']()
  keep = packing.keep_mask(small.HELD_OUT.tokens[rows])
  # `activations` returns the kept positions in the order of the cache.
  by_row = np.zeros((*small.HELD_OUT.tokens.shape, 16), np.float32)
  by_row[packing.keep_mask(small.HELD_OUT.tokens)] = small.activations(
      'resid_post'
  )
  x = by_row[rows]
  params = {name: np.asarray(array) for name, array in member.params.items()}
  z = x @ params['W_enc'] + params['b_enc']
  fires = keep[..., None] & (z > params['threshold'])
  dense = np.where(fires, z, 0).reshape(-1, z.shape[-1])
  np.testing.assert_allclose(latents[0], dense, atol=1e-4)
  assert 0 < (dense != 0).mean() < 0.9
  assert not latents[NAMES.index('zero')].any()


def test_selection_on_the_device_has_the_same_firings(
    expected, tmp_path, monkeypatch
):
  monkeypatch.setattr(text_pass, 'DENSE_BYTES', 0)
  monkeypatch.setattr(text_pass, 'FIRST_BOUND', 2)
  bounds = []
  active = text_pass.active
  monkeypatch.setattr(
      text_pass,
      'active',
      lambda *a, bound, **b: bounds.append(bound)
      or active(*a, bound=bound, **b),
  )
  rows, latents = _firings(tmp_path)
  np.testing.assert_array_equal(rows, expected[0])
  for ours, theirs in zip(latents, expected[1], strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
  # Bounds are doubled where they are too small, and only there.
  assert min(bounds) == 2 and max(bounds) > 4


@pytest.mark.parametrize('dense_bytes', [0, 1 << 26])
def test_firings_are_equal_on_several_devices(
    expected, tmp_path, monkeypatch, dense_bytes
):
  monkeypatch.setattr(text_pass, 'DENSE_BYTES', dense_bytes)
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  rows, latents = _firings(tmp_path, mesh)
  np.testing.assert_array_equal(rows, expected[0])
  for ours, theirs in zip(latents, expected[1], strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(ours != 0, theirs != 0)
