"""delphi opens our caches of latents, and makes examples from them."""

import numpy as np
import pytest

from jumprelu.features import reading
from jumprelu.features.exports import delphi as export

pytestmark = pytest.mark.readers

LENGTH = 32


class Pieces:
  """A tokenizer that decodes token ids to their digits."""

  def batch_decode(self, tokens):
    return [str(int(token)) for token in np.asarray(tokens).reshape(-1)]


@pytest.fixture(scope='module')
def cache(demo, suite, tmp_path_factory):
  out = tmp_path_factory.mktemp('delphi')
  export.write(list(suite.values()), out, folder=demo / 'features')
  return out / 'latents'


def dataset(cache, **arguments):
  from delphi import config, latents

  return latents.LatentDataset(
      raw_dir=str(cache),
      sampler_cfg=config.SamplerConfig(
          n_examples_train=2, n_examples_test=2, n_quantiles=2
      ),
      constructor_cfg=config.ConstructorConfig(
          example_ctx_len=LENGTH, min_examples=4, n_non_activating=2
      ),
      tokenizer=Pieces(),
      **arguments,
  )


def test_the_loader_reads_every_firing_of_the_suite(demo, suite, cache):
  opened = dataset(cache)
  passages = reading.read_texts(demo / 'features')['tokens'].to_pylist()
  assert opened.tokens.tolist() == passages
  assert len(opened.buffers) == len(suite)
  for buffer in opened.buffers:
    (path,) = (p for p in suite if p.replace('/', '.') == buffer.module_path)
    table = reading.read_text_firings(demo / 'features', path).to_pylist()
    wanted = {
        (row['text'], row['index'], latent): value
        for row in table
        for latent, value in zip(row['latents'], row['values'], strict=True)
    }
    read = {}
    for data in buffer:
      firings = data.activation_data
      assert set(firings.locations[:, 2].tolist()) == {data.latent.latent_index}
      read |= zip(
          map(tuple, firings.locations.tolist()),
          firings.activations.tolist(),
          strict=True,
      )
    assert read == wanted and read


def test_examples_of_a_latent_are_windows_of_the_passages(cache, suite):
  import torch

  module = next(p for p in suite if p.startswith('resid_post'))
  module = module.replace('/', '.')
  counts = {
      data.latent.latent_index: len(data.activation_data.activations)
      for data in dataset(cache, modules=[module]).buffers[0]
  }
  # Latents that fire neither rarely nor at every token.
  chosen = [i for i, n in sorted(counts.items()) if 30 < n < 200][:5]
  assert len(chosen) == 5
  opened = dataset(
      cache, modules=[module], latents={module: torch.tensor(chosen)}
  )
  records = list(opened)
  assert [r.latent.latent_index for r in records] == chosen
  windows = {
      tuple(row[start : start + LENGTH])
      for row in opened.tokens.tolist()
      for start in range(len(row) - LENGTH + 1)
  }
  for record in records:
    assert record.train and record.test
    for example in record.train:
      assert tuple(example.tokens.tolist()) in windows
      assert example.activations.max() > 0
