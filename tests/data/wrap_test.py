"""Documents wrapped as the user's turn of a chat: ids, caches and masks."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import data, errors, lm
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import stream
from jumprelu.data import corpus, packing
from jumprelu.evals import splice
from jumprelu.training import config as config_lib

_TURNS = {'<start_of_turn>': 40, '<end_of_turn>': 41, 'user': 42, '\n': 43}


class Tokenizer(data.Tokenizer):
  """One token per character; `_TURNS` has the ids of special pieces."""

  sha256 = 'a' * 64
  vocab_size = 300

  def __init__(self):
    self._processor = self

  def piece_to_id(self, piece):
    return _TURNS.get(piece, packing.UNK)

  def encode(self, text):
    return [ord(c) for c in text]

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]


MODEL = [ord(c) for c in 'model']
PREFIX = (40, 42, 43)
SUFFIX = (41, 43, 40, *MODEL, 43)


@pytest.fixture
def config(tmp_path):
  text = tmp_path / 'text'
  text.mkdir()
  for number in range(12):
    (text / f'{number}.txt').write_text(chr(65 + number) * (3 + number))
  return data.Config(
      sequence_length=24, cache_dir=str(tmp_path / 'cache'), wrap='chat'
  )


def prepare(config, tmp_path, **changes):
  config = dataclasses.replace(config, **changes)
  return data.prepare(str(tmp_path / 'text'), Tokenizer(), config)


def test_a_wrap_uses_the_single_ids_of_gemmas_turn_pieces():
  wrap = corpus.make_wrap(Tokenizer(), data.Config(wrap='chat'))
  assert wrap == packing.Wrap(PREFIX, SUFFIX, eos=False)
  assert corpus.make_wrap(Tokenizer(), data.Config()) == packing.PLAIN


def test_a_cache_holds_wrapped_documents_and_their_prefix(config, tmp_path):
  prepared = prepare(config, tmp_path)
  for cache in (prepared.train, prepared.held_out):
    assert cache.user_prefix == PREFIX
    rows = cache.tokens_at(range(len(cache)))
    starts = np.argwhere(rows == packing.BOS)
    assert len(starts) and not (rows == packing.EOS).any()
    for row, start in starts:
      assert tuple(rows[row, start + 1 : start + 4]) == PREFIX
      text = rows[row, start + 4 :].tolist()
      end = text.index(41)
      assert tuple(text[end : end + len(SUFFIX)]) == SUFFIX
      assert len(set(text[:end])) == 1


def test_wrapped_and_plain_caches_do_not_mix(config, tmp_path):
  wrapped = prepare(config, tmp_path)
  plain = prepare(config, tmp_path, wrap='none')
  assert plain.train.user_prefix == ()
  assert wrapped.train.digest != plain.train.digest
  spec = f'tokens:{wrapped.train.directory.parent}'
  plain_config = data.Config(sequence_length=24)
  with pytest.raises(errors.UserError, match='--corpus.wrap=chat'):
    data.prepare(spec, Tokenizer(), plain_config)


def test_training_and_evaluation_keep_the_same_positions(
    config, tmp_path, monkeypatch
):
  cache = prepare(config, tmp_path).train
  tokens = cache.tokens_at(range(2))
  wanted = packing.keep_mask(tokens, PREFIX)
  assert packing.keep_mask(tokens).sum() - wanted.sum() >= len(PREFIX)

  class Rows:

    def block(self, block_index, sequences, *, rows):
      return tokens[rows]

  tap = lm.Tap(0, lm.Site.RESID_POST)

  def forward(params, tokens):
    return {tap: jnp.ones((*tokens.shape, 3))}

  trained = stream.Stream(
      stream.Config(48, 48, logical_shards=1, lm_sequences=2, scale_tokens=48),
      forward,
      params={},
      loader=Rows(),
      sequence_length=24,
      user_prefix=cache.user_prefix,
  ).make_block(0, scales_lib.Scales({tap: 1.0}))
  np.testing.assert_array_equal(trained.keep.reshape(2, 24), wanted)
  kept = trained.activations[tap][..., 0]
  np.testing.assert_array_equal(kept.reshape(2, 24), wanted)

  monkeypatch.setattr(
      lm, 'activations', lambda *args, **kwargs: {tap: jnp.ones((2, 24, 3))}
  )
  model = lm.LanguageModel(lm.get_config('gemma2_nano'), {}, tmp_path, 1)
  evaluated = splice.forward(
      model, {}, jnp.asarray(tokens), taps=[tap], user_prefix=cache.user_prefix
  )
  np.testing.assert_array_equal(evaluated.keep, wanted)


def test_the_recipe_is_gemma_scopes_for_instruction_tuned_models():
  paper = config_lib.resolve({'recipe': 'paper'})
  tuned = config_lib.resolve({'recipe': 'paper_it', 'model': 'gemma2_9b_it'})
  assert tuned.corpus.wrap == 'chat' and paper.corpus.wrap == 'none'
  assert tuned.sites == ('resid_post',)
  assert (tuned.optim, tuned.stream, tuned.tokens) == (
      paper.optim, paper.stream, paper.tokens,
  )  # fmt: skip


def test_an_unknown_wrap_is_refused():
  with pytest.raises(errors.UserError, match="wrap: 'turns' is none of none"):
    config_lib.resolve({'corpus.wrap': 'turns'})
