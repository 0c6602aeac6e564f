"""A TFDS set is read in order from its folder, and never downloaded."""

import numpy as np
import pytest

from jumprelu import data
from jumprelu.data import sources
from jumprelu.data.config import Config
from jumprelu.errors import MissingInputError, UserError

TEXTS = [f'Story {i}: ' + 'and then ' * (i % 5) + 'the end.' for i in range(30)]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Returns the folder of a small set, written by a builder defined here."""
  import tensorflow_datasets as tfds

  class TinyStories(tfds.core.GeneratorBasedBuilder):
    """Thirty stories in `train`, two texts in `test`."""

    VERSION = tfds.core.Version('1.2.0')
    # TFDS searches for a set's checksums beside the module of its builder. This
    # set has none, and TFDS cannot locate a module that pytest imported.
    __module__ = 'no_module'

    def _info(self):
      return tfds.core.DatasetInfo(
          builder=self,
          features=tfds.features.FeaturesDict(
              {'story': tfds.features.Text(), 'number': np.int32}
          ),
          disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {
          'train': self._generate_examples(TEXTS),
          'test': self._generate_examples(['A test.', '', 'Another test.']),
      }

    def _generate_examples(self, texts):
      for i, text in enumerate(texts):
        yield i, {'story': text, 'number': i}

  root = tmp_path_factory.mktemp('tfds')
  TinyStories(data_dir=root).download_and_prepare()
  return str(root)


def _source(data_dir, spec='tfds:tiny_stories', **changes):
  options = {'text_field': 'story', 'data_dir': data_dir} | changes
  return sources.make_source(spec, Config(**options))


def test_examples_are_read_in_order_and_again_in_the_same_order(data_dir):
  source = _source(data_dir)
  for _ in range(2):
    assert [d.text for d in source.documents()] == TEXTS


def test_another_split_is_read_without_its_empty_examples(data_dir):
  texts = [d.text for d in _source(data_dir, tfds_split='test').documents()]
  assert texts == ['A test.', 'Another test.']


def test_the_description_names_version_and_sizes(data_dir):
  description = _source(data_dir).describe()
  assert description['set'] == 'tiny_stories/1.2.0'
  assert description['examples'] == 30
  assert description['bytes'] > sum(map(len, TEXTS))


def test_a_set_becomes_two_caches(data_dir, tokenizer, config):
  config = Config(
      sequence_length=16,
      held_out_percent=30,
      cache_dir=config.cache_dir,
      data_dir=data_dir,
      text_field='story',
  )
  prepared = data.prepare('tfds:tiny_stories', tokenizer, config)
  tokens = sum(len(tokenizer.encode(t)) for t in TEXTS)
  description = prepared.description
  counted = [description[s]['tokens'] for s in ('train', 'held_out')]
  assert sum(counted) == tokens and min(counted) > 0


@pytest.mark.parametrize('name', ['no_such_set_anywhere', 'lm1b'])
def test_the_error_for_a_missing_set_explains_how_to_prepare_it(name, data_dir):
  with pytest.raises(MissingInputError) as caught:
    _source(data_dir, spec=f'tfds:{name}').describe()
  message = str(caught.value)
  assert f'tfds build {name} --data_dir={data_dir}' in message
  assert '\n' not in message


def test_a_missing_split_lists_the_splits(data_dir):
  with pytest.raises(UserError, match=r"'dev' among \['test', 'train'\]"):
    _source(data_dir, tfds_split='dev').describe()


def test_a_missing_field_lists_the_fields(data_dir):
  with pytest.raises(UserError, match=r"'text' among \['number', 'story'\]"):
    _source(data_dir, text_field='text').describe()


def test_a_field_that_is_not_text_is_refused(data_dir):
  with pytest.raises(UserError, match="'number' is not text"):
    list(_source(data_dir, text_field='number').documents())
