"""The check of the native encoder finds no error, and would find one."""

import itertools

import pytest

from experiments.benchmarking import candidates
from experiments.benchmarking import problem as problem_lib
from jumprelu.ops import native
from tests import native_library


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Makes problems small."""
  native_library.need(native_library.ENCODED)
  monkeypatch.setattr(candidates, '_SHAPE', problem_lib.SHAPES['XS'])
  monkeypatch.setattr(candidates, '_L0', 16)


def test_no_pair_of_random_and_damaged_problems_is_wrong():
  sources = candidates.random(zipf=True), candidates.adversarial()
  for source in sources:
    counts = candidates.measure(source, 20 * 128 * 512)
    assert counts.pairs == 20 * 128 * 512 and counts.rows == 20 * 128
    assert counts.wrong == 0
    assert counts.selected < counts.candidates < counts.pairs
    assert counts.uncertain < 0.01 * counts.pairs


@pytest.mark.parametrize('defect', ['missing', 'added'])
def test_a_pair_too_few_or_too_many_is_wrong(defect, monkeypatch):
  encode = native.encode

  def damaged(*args, **options):
    encoded = encode(*args, **options)
    if defect == 'missing':
      return encoded._replace(counts=encoded.counts.at[3].add(-1))
    # Latent 0 is zero, and below its threshold.
    latents = encoded.latents.at[3, encoded.counts[3]].set(0)
    return encoded._replace(counts=encoded.counts.at[3].add(1), latents=latents)

  (problem,) = itertools.islice(candidates.random(zipf=False), 1)
  encoder = problem.encoder.at[0].set(0)
  problem = problem._replace(encoder=encoder, b_enc=problem.b_enc.at[0].set(-9))
  monkeypatch.setattr(native, 'encode', damaged)
  candidates.compare.clear_cache()
  counts = candidates.measure(iter([problem]), 1)
  candidates.compare.clear_cache()
  assert counts.wrong == 1
