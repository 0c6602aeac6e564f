"""Fixtures: a small corpus and a tokenizer trained on it."""

import pathlib

import pytest

from jumprelu.data import tokenizer as tokenizer_lib
from jumprelu.data.config import Config

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'


@pytest.fixture(scope='session')
def fixtures():
  return FIXTURES


@pytest.fixture(scope='session')
def texts():
  """The fixture corpus, read without the code under test."""
  texts_by_name = {}
  for path in sorted((FIXTURES / 'corpus').rglob('*.*')):
    if path.suffix in ('.txt', '.md', '.py') and path.stat().st_size:
      name = 'corpus/' + path.relative_to(FIXTURES / 'corpus').as_posix()
      texts_by_name[name] = path.read_text(encoding='utf-8')
  return texts_by_name


@pytest.fixture(scope='session')
def tokenizer(texts, tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.model'
  return tokenizer_lib.train_tokenizer(texts.values(), path, 420)


@pytest.fixture
def config(tmp_path):
  return Config(
      sequence_length=16,
      held_out_percent=30,
      cache_dir=str(tmp_path / 'cache'),
  )
