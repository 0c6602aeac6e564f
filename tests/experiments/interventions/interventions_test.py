"""The experiments on edits and attributions, on two prompts."""

import numpy as np
import pyarrow as pa
import pytest

from experiments.interventions import passages, patching, steering
from jumprelu import errors
from jumprelu.features import reading
from tests.api import conftest as api

release, model, suite = api.release, api.model, api.suite


def test_prompts_are_consecutive_windows_that_begin_with_bos(monkeypatch):
  table = pa.table({'tokens': [[5, 6, 7, 8, 9], [2, 10, 11, 12, 13]]})
  monkeypatch.setattr(reading, 'read_texts', lambda folder: table)
  windows = passages.prompts('a', count=3, length=2, bos=2)
  assert windows == [[2, 5, 6], [2, 7, 8], [2, 11, 12]]
  with pytest.raises(
      errors.UserError, match='3 windows of 2 tokens, 4 are needed'
  ):
    passages.prompts('a', count=4, length=2, bos=2)


def test_spearmans_correlation_of_ranks_with_ties():
  x, y = [1, 2, 2, 9], [0, 5, 5, 6]
  np.testing.assert_allclose(patching.spearman(x, y), 1)
  np.testing.assert_allclose(patching.spearman(x, [-v for v in y]), -1)
  # Of the ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
  value = patching.spearman(x, [1, 2, 3, 4])
  np.testing.assert_allclose(value, 4.5 / np.sqrt(4.5 * 5))


def test_medians_have_intervals():
  rows = [{'gradient': g, 'integrated': 1.0} for g in (0.1, 0.5, 0.9)]
  (name, median, low, high), (_, *exact) = patching.summary(rows)
  assert (name, median) == ('gradient', 0.5) and 0.1 <= low <= high <= 0.9
  assert exact == [1.0, 1.0, 1.0]


def test_means_have_standard_errors():
  value, error = passages.mean([0.0, 1.0, 2.0])
  assert value == 1 and np.isclose(error, 1 / np.sqrt(3))


@pytest.mark.slow
def test_the_experiments_run_on_two_prompts(model, suite, monkeypatch):
  sae = suite['resid_post', 20]
  row = np.asarray(model.params['embedder']['input_embedding']) @ sae.W_dec[3]
  promoted = [{'token': int(t), 'effect': 1.0} for t in (-row).argsort()[:10]]
  rows = [{'latent': 3, 'largest': 20.0, 'promoted': promoted}]
  monkeypatch.setattr(reading, 'read_latents', lambda *_, **__: rows)
  prompts = [
      model.tokenize(text)[:5].tolist()
      for text in ('import os, re', 'def function(x):')
  ]
  (measured,) = steering.measure(
      sae,
      model,
      'features',
      latents=[3],
      strength=4.0,
      prompts=prompts,
      controls=2,
      tokens=4,
  )
  assert measured['rate'] > measured['rate_controls']
  traced = patching.measure(sae, model, texts=prompts, steps=4)
  assert all(row['latents'] > 3 for row in traced)
  methods = ['gradient', 'integrated from 0']
  assert all(-1 <= row[m] <= 1 for row in traced for m in methods)
  assert [line[0] for line in patching.summary(traced)] == methods
  assert patching.summary(traced)[0][1] > 0.5
