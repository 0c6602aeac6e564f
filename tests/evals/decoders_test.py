"""Geometry, splitting, stability and histograms, against plain NumPy."""

import itertools

import numpy as np

from jumprelu.evals.measures import geometry, histogram, splitting, stability
from tests.evals import measured


def unit(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def random_rows(count, seed=0, d=12):
  rng = np.random.default_rng(seed)
  return unit(rng.normal(size=(count, d))).astype(np.float32)


def alive(name):
  """Returns the unit rows of the latents that fire, and the mask of these."""
  latents, _, _ = measured.sae(name)
  fires = (latents[measured.KEEP] > 0).any(0)
  member = measured.members()[measured.NAMES.index(name)]
  return unit(np.asarray(member.params['W_dec'], np.float64)[fires]), fires


def test_nearest_in_chunks_equals_all_at_once(monkeypatch):
  a, b = random_rows(23), random_rows(31, seed=1)
  monkeypatch.setattr(geometry, '_CHUNK_BYTES', 4 * 31 * 5)
  best, where = geometry.nearest(a, b)
  cosines = a @ b.T
  np.testing.assert_allclose(best, cosines.max(1), rtol=1e-5)
  np.testing.assert_array_equal(where, cosines.argmax(1))
  others, _ = geometry.nearest(a, a, itself=True)
  np.testing.assert_allclose(
      others, (a @ a.T - 9 * np.eye(23)).max(1), rtol=1e-5
  )


def test_geometry_of_the_latents_that_fire():
  rows, fires = alive('random')
  assert 2 < len(rows) < len(fires) or fires.all()
  cosines = rows @ rows.T
  np.fill_diagonal(cosines, -2)
  result = measured.row('random')
  np.testing.assert_allclose(
      result['nearest_cosine'], cosines.max(1).mean(), rtol=1e-5
  )
  member = measured.members()[0]
  columns = unit(np.asarray(member.params['W_enc'], np.float64).T[fires])
  np.testing.assert_allclose(
      result['encoder_decoder_cosine'],
      (rows * columns).sum(1).mean(),
      rtol=1e-5,
  )
  assert measured.row('transcoder')['encoder_decoder_cosine'] is None
  table = measured.evaluation().tables['geometry']
  median = [
      row['nearest_cosine']
      for row in table
      if row['path'] == result['path'] and row['percentile'] == 50
  ]
  np.testing.assert_allclose(median, np.median(cosines.max(1)), rtol=1e-5)


def test_splitting_by_hand():
  narrow = np.eye(4)[:3]
  wide = unit(
      np.array([[1, 0.1, 0, 0], [1, -0.1, 0, 0], [0, 1, 0.2, 0], [0, 0, 0, 1]])
  )
  result = splitting.compare(narrow, wide)
  # Row 0 split in two, row 1 has one child, row 2 none; the last is new.
  np.testing.assert_allclose(result['split_share'], 1 / 3)
  np.testing.assert_allclose(result['new_share'], 1 / 4)
  np.testing.assert_allclose(result['kept_share'], 2 / 3)
  np.testing.assert_allclose(result['children'], 1.5)
  np.testing.assert_allclose(
      result['nearest_cosine'], (narrow @ wide.T).max(0).mean(), rtol=1e-6
  )


def test_splitting_compares_with_every_wider_member_of_the_site():
  table = measured.evaluation().tables['splitting']
  narrow = measured.row('narrow')['path']
  assert [(r['narrow_path'], r['wide_path']) for r in table] == [
      (narrow, measured.row(name)['path']) for name in ('random', 'second')
  ]
  assert {(r['narrow_width'], r['wide_width']) for r in table} == {(8, 24)}
  wanted = (alive('random')[0] @ alive('narrow')[0].T).max(1).mean()
  np.testing.assert_allclose(table[0]['nearest_cosine'], wanted, rtol=1e-5)


def test_a_permuted_decoder_is_matched_completely():
  a = random_rows(10, d=90)
  result = stability.match(a, a[::-1])
  np.testing.assert_allclose(result['matched_cosine'], 1, rtol=1e-6)
  assert result['matched_share'] == 1
  # Half of the rows are replaced, and the new rows are not near any old one.
  b = np.concatenate([a[:5], random_rows(5, seed=3, d=90)])
  result = stability.match(a, b)
  assert result['matched_share'] == 0.5
  # Six rows have no partner and are not reproduced.
  assert stability.match(a, a[:4])['matched_share'] == 0.4


def test_the_matching_is_optimal():
  a, b = random_rows(4, d=3), random_rows(4, seed=1, d=3)
  cosines = a @ b.T
  best = max(
      cosines[np.arange(4), list(p)].mean()
      for p in itertools.permutations(range(4))
  )
  greedy = cosines.max(1).mean()
  result = stability.match(a, b)
  np.testing.assert_allclose(result['matched_cosine'], best, rtol=1e-6)
  assert result['matched_cosine'] < greedy


def test_only_members_that_differ_in_their_seed_are_compared():
  (pair,) = measured.evaluation().tables['stability']
  assert pair['path'] == measured.row('random')['path']
  assert pair['other_path'] == measured.row('second')['path']
  for name in ('random', 'second'):
    result = measured.row(name)
    assert result['seed_matched_cosine'] == pair['matched_cosine']
    assert result['seed_matched_share'] == pair['matched_share']
  assert 'seed_matched_cosine' not in measured.row('narrow')


def test_histogram_by_hand():
  frequency = np.array([0, 0, 1e-8, 0.004, 0.0041, 0.05, 0.2, 1.0])
  result = histogram.Histogram.from_frequency(frequency)
  rows = result.compute()
  assert rows[0]['latents'] == 2 and rows[1]['latents'] == 1
  assert sum(row['latents'] for row in rows) == 8
  low = {round(r['log10_low'], 1): r['latents'] for r in rows[2:]}
  assert {k: v for k, v in low.items() if v} == {
      -2.4: 2,
      -1.4: 1,
      -0.7: 1,
      -0.1: 1,
  }
  both = result.merge(result).compute()
  assert [r['latents'] for r in both] == [2 * r['latents'] for r in rows]
  shares = histogram.shares(frequency)
  assert shares['over_1_percent_share'] == 3 / 8
  assert shares['over_10_percent_share'] == 2 / 8
  np.testing.assert_allclose(
      shares['over_10_percent_mass'], 1.2 / frequency.sum(), rtol=1e-6
  )


def test_the_histogram_has_the_frequencies_of_the_evaluation():
  latents, _, _ = measured.sae('transcoder')
  frequency = (latents[measured.KEEP] > 0).mean(0)
  result = measured.row('transcoder')
  np.testing.assert_allclose(
      result['over_10_percent_share'], (frequency > 0.1).mean()
  )
  table = [
      row
      for row in measured.evaluation().tables['histogram']
      if row['path'] == result['path']
  ]
  assert sum(row['latents'] for row in table) == len(frequency)
  assert table[0]['latents'] == (frequency == 0).sum()
