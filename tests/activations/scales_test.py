"""The scales of taps: norm limits, centers, records and initial biases."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, lm
from jumprelu.activations import scales as scales_lib
from jumprelu.training import config as config_lib
from jumprelu.training import suite
from tests import small_run, small_store, toy_run, toy_suite

_TAP = lm.Tap(toy_suite.LAYER, lm.Site.RESID_POST)
_OPTIONS = {'stream__center': True, 'stream__max_norm': 4.0}
_LOUD = 17  # A token whose activations have 50 times the usual norm.


def _table():
  table = toy_suite.make_table()
  for x in table.values():
    x[_LOUD] *= 50
  return table


def _stream(**changes):
  return toy_suite.make_stream(toy_suite.make_config(**changes), table=_table())


def _rows(tap=_TAP):
  """Returns the rows of text of the first 64 positions, by NumPy."""
  loader = toy_suite.Loader()
  tokens = np.concatenate([loader.row(number) for number in range(8)])
  return _table()[tap][tokens[tokens >= 4]].astype(np.float64)


def test_limits_are_multiples_of_the_median_norm():
  limits = _stream(**_OPTIONS).estimate_scales().limits
  assert sorted(limits) == sorted(toy_suite.TAPS)
  for tap in toy_suite.TAPS:
    norms = np.linalg.norm(_rows(tap), axis=1)
    np.testing.assert_allclose(limits[tap], 4 * np.median(norms), rtol=1e-5)


def test_scales_and_centers_are_those_of_rows_within_the_limits():
  scales = _stream(**_OPTIONS).estimate_scales()
  rows = _rows()
  norms = np.linalg.norm(rows, axis=1)
  rows = rows[norms <= 4 * np.median(norms)]
  assert 0 < len(rows) < len(norms)
  mean = rows.mean(0)
  np.testing.assert_allclose(scales.centers[_TAP], mean, rtol=1e-4, atol=1e-6)
  spread = np.sqrt(np.mean(np.sum((rows - mean) ** 2, 1)))
  np.testing.assert_allclose(scales[_TAP], spread, rtol=1e-5)
  for start in scales.starts(lm.Reads((_TAP,), (_TAP,))):
    np.testing.assert_allclose(start, mean / spread, rtol=1e-4, atol=1e-6)


def test_without_options_nothing_is_recorded_but_the_scales():
  scales = _stream().estimate_scales()
  assert (scales.limits, scales.centers) == ({}, {})
  assert list(scales.to_json()) == ['scales']
  assert scales.starts(lm.Reads((_TAP,), (_TAP,))) == ()
  rows = _rows()
  np.testing.assert_allclose(
      scales[_TAP], np.sqrt(np.mean(np.sum(rows**2, 1))), rtol=1e-6
  )


def test_scales_survive_json():
  scales = _stream(**_OPTIONS).estimate_scales()
  read = scales_lib.from_json(json.loads(json.dumps(scales.to_json())))
  assert read == scales
  assert read.limits == scales.limits
  for tap, center in scales.centers.items():
    np.testing.assert_array_equal(read.centers[tap], center)
  assert list(read.only([_TAP]).centers) == [_TAP]


def test_rows_above_a_limit_are_dropped_but_not_counted_as_damaged():
  stream = _stream(**_OPTIONS)
  block = stream.make_block(0, stream.estimate_scales())
  tokens = stream.loader.block(0, 16, rows=slice(0, 16)).reshape(8, -1)
  kept = (tokens >= 4) & (tokens != _LOUD)
  np.testing.assert_array_equal(block.keep, kept)
  assert (tokens == _LOUD).any()
  assert int(block.dropped) == 0
  assert not np.asarray(block.activations[_TAP])[~kept].any()


def test_the_number_of_devices_changes_no_bit():
  config = toy_suite.make_config(**_OPTIONS)
  alone = toy_suite.make_stream(config).estimate_scales().to_json()
  mesh = toy_suite.make_mesh(8)
  sharded = toy_suite.make_stream(config, mesh=mesh).estimate_scales()
  assert sharded.to_json() == alone


def test_constant_activations_cannot_be_centered():
  table = {_TAP: np.ones((toy_suite.VOCAB, 4), np.float32)}
  stream = toy_suite.make_stream(
      toy_suite.make_config(stream__center=True), table=table
  )
  with pytest.raises(errors.DataError, match='do not vary; leave out'):
    stream.estimate_scales()


@pytest.mark.parametrize('value', [1.0, -2.0, float('inf'), float('nan')])
def test_a_limit_at_or_below_the_median_is_refused(value):
  with pytest.raises(errors.UserError, match='stream.max_norm='):
    toy_suite.make_config(stream__max_norm=value)


@pytest.mark.parametrize('variant', ['jumprelu', 'gated', 'topk'])
@pytest.mark.parametrize('site', ['resid_post', 'transcoder'])
def test_an_sae_starts_as_if_activations_had_no_mean(variant, site):
  fields = {k: v for k, v in toy_suite.SMALL.items() if 'jumprelu' not in k}
  fields |= {'sites': (site,), 'variants': (variant,)}
  groups = toy_suite.make_groups(config_lib.resolve(fields))
  scales = _stream(**_OPTIONS).estimate_scales()
  (group,) = groups
  plain, centered = (
      jax.tree.map(lambda x: x[0], state.groups[group.name].params)
      for state in (suite.init_state(groups), suite.init_state(groups, scales))
  )
  x = np.random.default_rng(0).normal(size=(32, group.sae.d_in))
  inputs, targets = scales.starts(group.reads)
  latents = group.sae.encode(plain, jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(
      group.sae.encode(centered, jnp.asarray(x + inputs, jnp.float32)),
      latents,
      atol=1e-4,
  )
  np.testing.assert_allclose(
      group.sae.decode(centered, latents) - group.sae.decode(plain, latents),
      np.broadcast_to(targets, (32, group.sae.d_out)),
      atol=1e-5,
  )


def test_a_run_records_its_scales_and_resumes_with_them(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  toy_run.run(whole, **_OPTIONS)
  toy_run.run(parts, stop=(5,), **_OPTIONS)
  toy_run.run(parts, **_OPTIONS)
  record = json.loads((whole / 'suite.json').read_text())
  assert sorted(record['norm_limits']) == sorted(record['centers'])
  small_run.assert_same_bits(whole, parts, 13)


def test_a_store_keeps_limits_and_centers(tmp_path):
  config = toy_suite.make_config(**_OPTIONS)
  job = toy_suite.make_job(config)
  small_store.write(tmp_path, job)
  stored = small_store.open_store(tmp_path, config=config)
  scales = stored.estimate_scales()
  wanted = job.stream.estimate_scales().only(scales)
  assert scales.to_json() == wanted.to_json()
  np.testing.assert_array_equal(
      np.sort(stored.make_block(0, scales).keep, axis=1),
      np.sort(job.stream.make_block(0, wanted).keep, axis=1),
  )
  with pytest.raises(errors.UserError, match='stream.max_norm was 4.0, is 0'):
    small_store.open_store(
        tmp_path, config=toy_suite.make_config(stream__center=True)
    )


@pytest.mark.parametrize(
    'change',
    [
        {'scales': None},
        {'scales': []},
        {'scales': {str(_TAP): '2'}},
        {'scales': {str(_TAP): 0}},
        {'scales': {str(_TAP): float('nan')}},
        {'scales': {'nowhere': 1.0}},
        {'norm_limits': {str(_TAP): -1.0}},
        {'norm_limits': 3},
        {'centers': {str(_TAP): 'a'}},
        {'centers': {str(_TAP): [[1.0], 2.0]}},
    ],
)
def test_a_record_with_damaged_scales_is_refused(change):
  record = scales_lib.Scales({_TAP: 2.0}, {_TAP: 4.0}).to_json()
  assert scales_lib.from_json(record).values == {_TAP: 2.0}
  with pytest.raises(errors.DataError) as caught:
    scales_lib.from_json(record | change)
  assert '\n' not in str(caught.value)
