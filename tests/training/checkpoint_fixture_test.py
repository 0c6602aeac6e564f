"""A stored checkpoint of an earlier version is restored unchanged."""

import pathlib
import shutil

import numpy as np
import pytest

from jumprelu.files import digests
from jumprelu.training import checkpoint, suite
from tests import toy_suite

# Two groups of two members at step 0, of a version whose records were
# flax.struct dataclasses.
_STORED = (
    pathlib.Path(__file__).parent / 'fixtures/checkpoint_of_flax_records.zip'
)


@pytest.mark.parametrize('devices', [(1, 1), (2, 2)], ids=str)
def test_a_checkpoint_of_flax_records_restores_its_digests(tmp_path, devices):
  shutil.unpack_archive(_STORED, tmp_path)
  config = toy_suite.make_config(
      widths=(8,), sparsity_coefficients=('1e-2',), seeds=(0, 1)
  )
  groups = toy_suite.make_groups(config)
  mesh = toy_suite.make_mesh(*devices)
  checkpointer = checkpoint.Checkpointer(tmp_path, checkpoint.Config())
  # The name and digest of each array are compared with the stored record.
  restored = checkpointer.latest_verified(suite.stored_state(groups, mesh=mesh))
  assert restored is not None
  state, meta = restored
  assert meta == {'block': 2, 'step': 7}
  assert isinstance(state.groups['resid_post-8-jumprelu'], suite.GroupState)
  norms = np.linalg.norm(
      state.groups['transcoder-8-jumprelu'].params['W_dec'], axis=-1
  )
  np.testing.assert_allclose(norms, np.ones((2, 8)), rtol=1e-5)


def test_the_names_of_the_arrays_in_checkpoints_are_these():
  groups = toy_suite.make_groups(toy_suite.make_config(sites=('resid_post',)))
  names = list(digests.named_leaves(suite.stored_state(groups)))
  group = 'groups.resid_post-48-jumprelu'
  arrays = ('W_dec', 'W_enc', 'b_dec', 'b_enc', 'log_threshold')
  assert names == [
      *(
          f'{group}.{part}.{name}'
          for part in ('params', 'nu')
          for name in arrays
      ),
      f'{group}.silent',
      f'{group}.skipped',
      f'{group}.failing',
      'step',
  ]
