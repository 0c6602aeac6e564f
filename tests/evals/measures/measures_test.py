"""Optional measures: names, merging of batches, and several devices."""

import numpy as np
import pytest

from jumprelu import errors, sharding
from jumprelu.evals import evaluate, measures
from tests import small_evaluation as small
from tests.evals import measured
from tests.lm import tiny

# Metrics that depend on the batch size by definition.
_BY_BATCH = (
    'saebench_mse',
    'saebench_explained_variance',
    'saebench_explained_variance_legacy',
    'saebench_relative_reconstruction_bias',
)


def compare(others, *, skip=()):
  whole = measured.evaluation()
  for ours, theirs in zip(others.rows, whole.rows, strict=True):
    assert set(ours) == set(theirs)
    for key, value in ours.items():
      if isinstance(value, float) and key not in skip:
        # With another order of sums, bfloat16 may round differently.
        atol = 1e-3 if 'bfloat16' in key else 1e-5
        np.testing.assert_allclose(
            value, theirs[key], rtol=2e-4, atol=atol, err_msg=key
        )
      elif key not in skip:
        assert value == theirs[key], key
  assert list(others.tables) == list(whole.tables)
  for name, table in others.tables.items():
    for ours, theirs in zip(table, whole.tables[name], strict=True):
      for key, value in ours.items():
        if isinstance(value, float):
          np.testing.assert_allclose(
              value, theirs[key], rtol=2e-3, atol=1e-4, err_msg=f'{name}.{key}'
          )
        else:
          assert value == theirs[key], (name, key)


@pytest.mark.slow
def test_measures_do_not_depend_on_the_batch_size():
  compare(measured.evaluation(sequences=10), skip=_BY_BATCH)


@pytest.mark.slow
def test_eight_devices_have_the_results_of_one():
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  compare(measured.evaluation(sequences=8, mesh=mesh), skip=_BY_BATCH)


def test_an_unknown_name_is_refused_with_the_known_names():
  assert measures.check(['kl', 'r_l0', 'kl']) == ('kl', 'r_l0')
  with pytest.raises(errors.UserError, match="'kll' is unknown; .*kl, pos"):
    evaluate.evaluate_members(
        tiny.model(),
        [small.MEMBERS['random']()],
        held_out=small.HELD_OUT,
        measures=('kll',),
    )
