"""Features of a small release, and the latents of its text by plain NumPy."""

import dataclasses
from typing import Any

import numpy as np
from pyarrow import parquet
import pytest

from jumprelu import data, features, lm
from jumprelu.data import packing
from jumprelu.evals import text as text_lib
from jumprelu.features import collect
from jumprelu.release import formats
from tests.api import conftest as api
from tests.features import plain_text

release, model = api.release, api.model

CONFIG = features.Config(
    tokens=1_400,
    examples=4,
    bands=3,
    band_examples=2,
    silent_examples=3,
    sample=50,
    window=5,
    listed=6,
    texts=7,
    text_length=20,
    lm_sequences=4,
)
CORPUS: dict[str, Any] = {
    'seed': 3,
    'held_out_percent': 40,
    'sequence_length': 32,
}


def collected(release, out, *, paths=(), **changes):
  """Returns the folder of the features of some members, and the manifest."""
  released = formats.select(formats.find(release), paths)
  training = next(iter(released.values())).training
  source = collect.Source(
      'gemma2_nano', training['data'], data.Config(**CORPUS)
  )
  config = dataclasses.replace(CONFIG, **changes)
  return out, collect.collect(released, out, source=source, config=config)


@pytest.fixture(scope='session')
def folder(release, tmp_path_factory):
  return collected(release, tmp_path_factory.mktemp('features') / 'out')[0]


@dataclasses.dataclass
class Reference:
  """The text, and the latents of each member at each position.

  Attributes:
    rows: Numbers of the rows in the cache.
    tokens: Token ids [rows, positions].
    documents: The cache position where each token's document starts.
    values: Latents [rows, positions, latents] by path.
    activations: Activations [rows, positions, d_site] by site.
    params: Arrays of params.npz by path.
    sites: Sites by path.
  """

  rows: np.ndarray
  tokens: np.ndarray
  documents: np.ndarray
  values: dict
  activations: dict
  params: dict
  sites: dict

  @property
  def kept(self):
    return int(packing.keep_mask(self.tokens).sum())


@pytest.fixture(scope='session')
def reference(release, model):
  training = next(iter(formats.find(release).values())).training
  cache = data.prepare(
      training['data'], model.tokenizer, data.Config(**CORPUS)
  ).held_out
  rows = text_lib.sample(cache, CONFIG.tokens, sequences=4).rows
  tokens = cache.tokens_at(rows)
  taps = [lm.Tap(api.LAYER, site) for site in lm.Site]
  shape = tokens.shape
  values = {tap: np.zeros((*shape, 128), np.float32) for tap in taps}
  for i, row in enumerate(tokens):
    starts = [*np.flatnonzero(row == packing.BOS), len(row)]
    for start, end in zip(starts[:-1], starts[1:], strict=True):
      ids = row[start:end]
      ids = ids[ids != packing.PAD]
      for tap, x in model.activations(ids, taps).items():
        part = values[tap][i]
        if part.shape[-1] != x.shape[-1]:
          values[tap] = np.zeros((*shape, x.shape[-1]), np.float32)
          part = values[tap][i]
        part[start : start + len(ids)] = x
  latents, params, sites = {}, {}, {}
  keep = packing.keep_mask(tokens)[..., None]
  gain = 1 + np.asarray(
      model.params[f'layer_{api.LAYER}']['pre_ffw_norm']['scale']
  )
  for path, sae in formats.find(release).items():
    with np.load(release / path / 'params.npz') as arrays:
      params[path] = p = dict(arrays)
    sites[path] = sae.origin.site
    tap = sae.origin.reads().input
    x = values[tap] / gain if tap.site is lm.Site.MLP_IN else values[tap]
    z = x @ p['W_enc'] + p['b_enc']
    latents[path] = np.where(keep & (z > p['threshold']), z, 0)
  activations = {tap.site.value: x for tap, x in values.items()}
  documents = plain_text.document_starts(cache)[rows]
  return Reference(rows, tokens, documents, latents, activations, params, sites)


@pytest.fixture(scope='session')
def tables(folder, reference):
  """Returns the rows of each member's file by path."""
  return {
      path: parquet.read_table(
          folder / 'members' / f'{path}.parquet'
      ).to_pylist()
      for path in reference.values
  }
