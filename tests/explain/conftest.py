"""A planted folder of features."""

import shutil

import pytest

from jumprelu.explain import rules
from tests.explain import planted


@pytest.fixture(scope='session')
def _planted(tmp_path_factory):
  folder = tmp_path_factory.mktemp('planted') / 'features'
  planted.write(folder)
  return folder


@pytest.fixture
def folder(_planted, tmp_path):
  return shutil.copytree(_planted, tmp_path / 'features')


@pytest.fixture(scope='session')
def vocabulary():
  return rules.Vocabulary(planted.PIECES)
