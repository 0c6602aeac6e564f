"""Evaluation of released SAEs: their members and the config of the text."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import data, errors, evals, lm, sharding
from jumprelu.evals import evaluate
from jumprelu.release import evaluation, formats
from tests import small_release


@pytest.mark.parametrize(
    'variant, fields', [('jumprelu', {}), ('gated', {'tied': False})]
)
def test_a_transcoder_without_the_gain_is_converted_to_the_tap_with_it(
    tmp_path, variant, fields
):
  gain = np.linspace(0.5, 2.0, 8).astype(np.float32)
  model = lm.LanguageModel(
      lm.get_config('gemma2_nano'),
      {'layer_2': {'pre_ffw_norm': {'scale': jnp.asarray(gain - 1)}}},
      tmp_path,
      4,
  )
  sae, params = small_release.trained_transcoder(variant, **fields)
  sae, params = sae.fold(params, input_scale=3.0, target_scale=2.0)
  origin = formats.Origin('gemma2_nano', 2, 'transcoder', False)
  skip = np.ones((8, 6), np.float32)
  sae = dataclasses.replace(sae, skip=True)
  params |= {'W_skip': skip}
  member = evaluation.make_member(
      'path', formats.Released(sae, params, origin, {})
  )
  converted = evaluate.params_with_gain(model, member)
  x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  np.testing.assert_allclose(
      sae.encode(converted, jnp.asarray(x * gain)),
      sae.encode(params, jnp.asarray(x)),
      rtol=1e-5,
  )
  np.testing.assert_allclose(
      x * gain @ converted['W_skip'], x @ skip, rtol=1e-5
  )


def test_an_unknown_corpus_field_is_a_data_error():
  with pytest.raises(errors.DataError, match="unknown field 'stride'"):
    evaluation.corpus_config({'corpus': {'stride': 2}})


def test_local_folders_of_the_training_run_are_ignored():
  corpus = evaluation.corpus_config(
      {'corpus': {'cache_dir': '/home/alice', 'sequence_length': 64}}
  )
  assert corpus.cache_dir == '' and corpus.sequence_length == 64


def test_the_text_is_looked_up_before_the_model_is_loaded(monkeypatch):
  def load(*unused_args, **unused_kwargs):
    raise AssertionError('loaded')

  monkeypatch.setattr(lm, 'load', load)
  with pytest.raises(errors.MissingInputError, match='no/such/text'):
    evaluation.evaluate_released(
        {},
        model='gemma2_nano',
        lm_dtype='auto',
        text='no/such/text',
        corpus=data.Config(),
        config=evals.Config(),
        mesh=sharding.Config(),
    )
