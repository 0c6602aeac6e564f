"""Errors name the config field or the corpus that is wrong."""

import dataclasses

import pytest

from jumprelu import data
from jumprelu.data import sources
from jumprelu.errors import MissingInputError, UserError


@pytest.mark.parametrize(
    'changes, word',
    [
        ({'sequence_length': 1}, 'sequence_length must be .*, got 1'),
        ({'held_out_percent': 0}, 'held_out_percent must be .*, got 0'),
        ({'held_out_percent': 91}, 'held_out_percent must be .*, got 91'),
        ({'max_tokens': -1}, 'max_tokens must be .*, got -1'),
        ({'seed': -1}, 'seed must be .*, got -1'),
        ({'seed': 2**32}, 'seed must be .*, got 4294967296'),
        ({'text_field': ''}, 'text_field'),
    ],
)
def test_an_invalid_config_names_its_field(changes, word):
  with pytest.raises(UserError, match=word):
    data.Config(**changes)


@pytest.mark.parametrize('spec', ['', ',', 'no/such/path', 'stdlb'])
def test_a_missing_corpus_is_an_error(spec, tokenizer, config):
  with pytest.raises((UserError, MissingInputError)) as caught:
    data.prepare(spec, tokenizer, config)
  assert '--data' in str(caught.value)


def test_one_short_text_cannot_be_split(tokenizer, config, tmp_path):
  (tmp_path / 'one.txt').write_text('Only one.')
  with pytest.raises(UserError, match='too few documents') as caught:
    data.prepare(str(tmp_path / 'one.txt'), tokenizer, config)
  assert caught.value.exit_code == 2


def test_max_tokens_is_named_if_it_leaves_no_document_to_hold_out(
    fixtures, tokenizer, config
):
  few = dataclasses.replace(config, max_tokens=1)
  with pytest.raises(UserError, match='raise --corpus.max_tokens=1$'):
    data.prepare(str(fixtures / 'corpus'), tokenizer, few)


def test_two_short_texts_can_be_split(tokenizer, config, tmp_path):
  texts = [t for t in map(str, range(100)) if not sources.is_held_out(t, 1)]
  for name, text in zip('ab', texts, strict=False):
    (tmp_path / f'{name}.txt').write_text(text)
  few = dataclasses.replace(config, held_out_percent=1)
  prepared = data.prepare(str(tmp_path), tokenizer, few)
  assert len(prepared.train) == len(prepared.held_out) == 1


def test_half_a_character_is_named_with_its_line(tokenizer, config, tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "good"}\n{"text": "half \\ud83d"}\n')
  with pytest.raises(UserError, match='a.jsonl:2: half a character'):
    data.prepare(str(path), tokenizer, config)


def test_a_cache_directory_that_cannot_be_written_is_named(
    fixtures, tokenizer, config, tmp_path
):
  (tmp_path / 'file').write_text('in the way')
  bad = dataclasses.replace(config, cache_dir=str(tmp_path / 'file' / 'cache'))
  with pytest.raises(UserError, match='cache_dir') as caught:
    data.prepare(str(fixtures / 'corpus'), tokenizer, bad)
  assert str(tmp_path / 'file') in str(caught.value)
