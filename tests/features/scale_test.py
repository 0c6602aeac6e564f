"""Tests of wide members, and of the memory of long texts."""

import json

import numpy as np
import pytest

from jumprelu import data, features, saes
from jumprelu.data import packing
from jumprelu.features import collect, reading, text_pass
from jumprelu.release.formats import record
from tests import local_processes
from tests.features.conftest import CORPUS

pytestmark = pytest.mark.slow

WIDTH, MODEL = 131_072, 128
LISTED = 3


@pytest.fixture(scope='module')
def wide(model):
  """Returns a random SAE of Gemma Scope's largest width."""
  rng = np.random.default_rng(0)
  decoder = rng.normal(size=(WIDTH, MODEL)).astype(np.float32)
  decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
  params = {
      'W_enc': np.ascontiguousarray(decoder.T),
      'b_enc': np.zeros(WIDTH, np.float32),
      'W_dec': decoder,
      'b_dec': np.zeros(MODEL, np.float32),
      # Activations have a norm of about 33, so dozens of latents fire.
      'threshold': np.full(WIDTH, 10, np.float32),
  }
  sae = saes.make_sae(
      'jumprelu',
      saes.VARIANTS['jumprelu'][1](threshold_parameter='linear'),
      d_in=MODEL,
      d_out=MODEL,
      width=WIDTH,
      transcoder=False,
  )
  origin = record.Origin('gemma2_nano', 2, 'resid_post', None)
  return record.Released(sae, params, origin, {})


def test_a_member_of_131072_latents(wide, reference, release, tmp_path):
  training = json.loads(next(release.rglob('config.json')).read_text())[
      'training'
  ]
  source = collect.Source(
      'gemma2_nano', training['data'], data.Config(**CORPUS)
  )
  config = features.Config(
      tokens=1_400, listed=LISTED, lm_sequences=16, texts=4, examples=5
  )
  positions = config.lm_sequences * CORPUS['sequence_length']
  assert 4 * positions * WIDTH > text_pass.DENSE_BYTES
  out = tmp_path / 'out'
  collect.collect({'wide': wide}, out, source=source, config=config)
  table = reading.read_table(out, 'wide', columns=['count', 'latent'])
  counts = np.asarray(table['count'])
  assert table['latent'].to_pylist() == list(range(WIDTH))
  x = reference.activations['resid_post'][packing.keep_mask(reference.tokens)]
  z = x @ wide.params['W_enc']
  np.testing.assert_array_equal(counts, (z > 10).sum(0))
  assert 10 < counts.sum() / len(x) < 200
  chosen = [*np.argsort(-counts)[:3].tolist(), 77]
  rows = reading.read_latents(out, 'wide', latents=sorted(chosen))
  for row in rows:
    on = z[:, row['latent']] > 10
    both = (z[on] > 10).sum(0)
    jaccard = both / np.maximum(counts + on.sum() - both, 1)
    jaccard[row['latent']] = 0
    best = np.sort(jaccard)[::-1][:LISTED]
    best = best[best > 0]
    np.testing.assert_allclose([e['jaccard'] for e in row['coactive']], best)
    cosines = wide.params['W_dec'] @ wide.params['W_dec'][row['latent']]
    best = np.sort(cosines)[::-1][1 : LISTED + 1]
    shown = [e['cosine'] for e in row['neighbours']]
    np.testing.assert_allclose(shown, best, atol=1e-5)


# Prints the peak of the memory that Python and NumPy allocate.
_PEAK = """
import dataclasses, pathlib, sys, tracemalloc
from jumprelu import data, features
from jumprelu.features import collect, text_pass
from jumprelu.release import formats

release, out, tokens = sys.argv[1:]
text_pass.SEGMENT_FIRINGS = 1 << 18
load, traced = collect._load_model, []


def load_then_trace(*args):
  model = load(*args)
  # Imports and the members' parameters are not counted.
  tracemalloc.start()
  return model


collect._load_model = load_then_trace
source = collect.Source('gemma2_nano', 'stdlib', data.Config())
config = features.Config(tokens=int(tokens), sample=50)
collect.collect(
    formats.select(formats.find(release), ['resid_post', 'transcoder']),
    pathlib.Path(out),
    source=source,
    config=config,
)
print('peak', tracemalloc.get_traced_memory()[1])
"""


def test_memory_does_not_grow_with_the_text(release, tmp_path):
  peaks = []
  for tokens in (30_000, 120_000):
    output = local_processes.finish(
        ['-c', _PEAK, release, tmp_path / str(tokens), tokens]
    )
    peaks.append(int(output.split('peak')[1]))
    manifest = reading.read_manifest(tmp_path / str(tokens))
    firings = sum(
        np.asarray(
            reading.read_table(tmp_path / str(tokens), m['path'])['count']
        ).sum()
        for m in manifest['members']
    )
    # Even the short text has several segments.
    assert firings > 4 << 18
  assert peaks[1] < 1.1 * peaks[0]
