"""transformers and TransformerLens have our activations at the named hooks."""

import json

import numpy as np
import pytest

from experiments.goldens import peer_metrics
from jumprelu import lm
from jumprelu.evals import parity
from tests.readers import make
from tests.release.exports import small

pytestmark = pytest.mark.readers

# Two forward passes in float32 round differently.
TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def exported(suite, tmp_path_factory):
  """The metadata of cfg.json of an SAE at each site, by site."""
  out = tmp_path_factory.mktemp('exports') / 'saelens'
  small.export(list(suite.values()), out, to='saelens')
  return {
      str(source.released.origin.site): json.loads(
          (out / path / 'cfg.json').read_text()
      )['metadata']
      for path, source in suite.items()
  }


@pytest.fixture(scope='module')
def ours(made):
  with np.load(made / 'activations.npz') as arrays:
    return dict(arrays)


def difference(values, wanted):
  return np.abs(values - wanted).max() / np.abs(wanted).max()


def test_transformers_has_our_activations_and_logits(made, ours, record):
  rows = np.load(made / 'rows.npy')[: make.FIRST]
  theirs = parity.theirs(made / 'model', rows)
  assert set(theirs) == set(ours)
  for name, value in theirs.items():
    record('transformers', difference(value, ours[name]), TOLERANCE)


def test_the_named_hooks_of_huggingface_are_those_of_our_taps(exported):
  family = lm.FAMILIES['gemma2'].hook_names
  for site, metadata in exported.items():
    source, target = lm.SITES[site]
    names = [
        family[tap].huggingface.format(layer=2) for tap in (source, target)
    ]
    assert metadata['hf_hook_name'] == names[0]
    assert metadata.get('hf_hook_name_out', names[1]) == names[1]


def test_the_named_hooks_of_transformer_lens_have_our_activations(
    made, ours, exported, record
):
  import torch

  model = peer_metrics.load_model(made / 'model')
  rows = torch.from_numpy(np.load(made / 'rows.npy')[: make.FIRST]).long()
  with torch.no_grad():
    logits, cache = model.run_with_cache(rows)
  wanted = ours[parity.LOGITS]
  record('transformer-lens', difference(logits.numpy(), wanted), TOLERANCE)
  for site, metadata in exported.items():
    source, target = lm.SITES[site]
    hooks = {target: metadata.get('hook_name_out') or metadata['hook_name']}
    # HookedTransformer has no hook after the gain of the norm.
    if site != 'transcoder':
      hooks[source] = metadata['hook_name']
    for tap, hook in hooks.items():
      wanted = ours[parity.key(lm.Tap(2, tap))]
      value = cache[hook].numpy().reshape(wanted.shape)
      record('transformer-lens', difference(value, wanted), TOLERANCE)
