"""Tests of the rules of resuming."""

from jumprelu.files import dotted
from jumprelu.training import resume
from tests import toy_suite


def test_only_the_named_fields_are_soft_not_those_with_the_same_prefix(
    monkeypatch,
):
  old, new = toy_suite.make_config(), toy_suite.make_config(data='other')
  monkeypatch.setattr(resume, 'SOFT', ('dat', 'mesh.'))
  assert resume.differences(old, new) == ["data was 'stdlib', is 'other'"]


def test_every_soft_name_is_a_field_or_a_part_of_the_config():
  paths = dotted.leaves(toy_suite.make_config())
  for name in resume.SOFT:
    assert any(dotted.is_among(path, [name]) for path in paths), name
