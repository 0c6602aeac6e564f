"""The schema of config.json: written, required and read back by one module."""

import dataclasses
import json

import pytest

from jumprelu import errors, lm
from jumprelu.release import formats, members
from tests import small_release


def _config(**changes):
  member = dataclasses.replace(small_release.make_member(), **changes)
  return members.member_config(
      member, small_release.PROVENANCE, sha256='00' * 32
  )


def test_every_required_field_and_every_result_column_is_written():
  names = {*members._REQUIRED, *members._RESULT_COLUMNS}
  assert names <= _config().keys()


@pytest.mark.parametrize('name', members._REQUIRED)
def test_a_config_without_a_required_field_is_refused_by_its_name(
    tmp_path, name
):
  out = small_release.write(tmp_path / 'release')
  small_release.change_json(out, lambda config: config.pop(name))
  if name == 'sha256':  # Resealing the release restores it.
    path = out / small_release.FOLDER / 'config.json'
    config = json.loads(path.read_text())
    del config[name]
    path.write_text(json.dumps(config))
  with pytest.raises(errors.DataError, match=f'config.json: lacks {name}$'):
    members.load_member(out / small_release.FOLDER)


def test_the_columns_of_a_released_member_come_from_its_config(tmp_path):
  out = small_release.write(tmp_path / 'release')
  (released,) = [
      sae
      for path, sae in formats.find(out).items()
      if path == small_release.FOLDER
  ]
  assert released.meta == {
      'variant': 'jumprelu',
      'sparsity_coefficient': 1e-3,
      'target_l0': 0.0,
      'seed': 0,
      'tokens_trained': 1000,
  }


def test_limits_of_norms_are_read_back_and_earlier_members_have_none(tmp_path):
  reads = lm.make_reads('resid_post', small_release.LAYER)
  limited = dataclasses.replace(reads, limits=((reads.input, 12.5),))
  member = dataclasses.replace(small_release.make_member(), reads=limited)
  out = small_release.write(tmp_path / 'release', [member])
  (released,) = formats.find(out).values()
  assert released.reads() == limited
  small_release.change_json(out, lambda config: config.pop('norm_limits'))
  (released,) = formats.find(out).values()
  assert released.reads() == reads


@pytest.mark.parametrize(
    'limits', [3, ['a'], {'nowhere': 1.0}, {'layer_1.resid_post': 'x'},
               {'layer_1.resid_post': -1}]
)  # fmt: skip
def test_a_damaged_limit_names_the_file_and_the_field(tmp_path, limits):
  out = small_release.write(tmp_path / 'release')
  small_release.change_json(
      out, lambda config: config.update(norm_limits=limits)
  )
  with pytest.raises(errors.DataError, match='config.json: norm_limits'):
    formats.find(out)


def test_only_a_stopped_run_has_the_column_unfinished():
  assert 'unfinished' not in members.result_columns(_config(total_steps=7))
  columns = members.result_columns(_config(total_steps=8))
  assert columns['unfinished'] == 'stopped at step 7 of 8'
