"""SAEDashboard's and Neuronpedia's classes accept the rows of our exports."""

import gzip
import inspect
import json

import numpy as np
import pytest

from jumprelu.features.exports import neuronpedia as export

pytestmark = pytest.mark.readers

# SAEDashboard's fields of an example -> Neuronpedia's.
EXAMPLE = {
    'bin_min': 'binMin',
    'bin_max': 'binMax',
    'bin_contains': 'binContains',
    'tokens': 'tokens',
    'values': 'values',
    'qualifying_token_index': 'qualifyingTokenIndex',
}


def rows(path):
  data = gzip.decompress(path.read_bytes()).decode()
  return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope='module')
def targets(demo, suite, tmp_path_factory):
  out = tmp_path_factory.mktemp('neuronpedia')
  sites = {str(s.released.origin.site): s for s in suite.values()}
  sources = list(sites.values())
  export.write(sources, out, folder=demo / 'features', creator='me')
  targets = sorted((out / 'gemma2_nano').iterdir())
  assert len(targets) == len(sources) == 4
  return targets


def fields(cls):
  return set(inspect.signature(cls.__init__).parameters) - {'self'}


def test_every_latent_is_a_feature_of_saedashboard(targets):
  from sae_dashboard.neuronpedia import neuronpedia_dashboard as dashboard

  wanted = fields(dashboard.NeuronpediaDashboardFeature) - {
      'feature_index', 'activations', 'n_prompts_total', 'n_tokens_in_prompt',
      'dataset',
  }  # fmt: skip
  for target in targets:
    (source,) = map(
        json.loads, (target / 'source.jsonl').read_text().split('\n')[:-1]
    )
    latents, examples = [], {}
    for number in range(4):
      for name in ('features', 'activations'):
        batch = rows(target / name / f'batch-{number}.jsonl.gz')
        if name == 'features':
          latents += batch
          continue
        for row in batch:
          examples.setdefault(row['index'], []).append(
              {ours: row[theirs] for ours, theirs in EXAMPLE.items()}
          )
    batch = dashboard.NeuronpediaDashboardBatch(
        model_id=latents[0]['modelId'],
        sae_set=source['setName'],
        features=[
            {
                'feature_index': int(row['index']),
                'n_prompts_total': source['num_prompts'],
                'n_tokens_in_prompt': source['num_tokens_in_prompt'],
                'dataset': source['dataset'],
                'activations': examples.get(row['index'], []),
            }
            | {name: row[name] for name in wanted}
            for row in latents
        ],
    )
    assert [f.feature_index for f in batch.features] == list(range(512))
    for feature in batch.features:
      check(feature)
    written = batch.to_dict()['features'][5]
    assert written['activations'] == examples['5']


def check(feature):
  """Checks a feature by the types that SAEDashboard's annotations name."""
  hints = inspect.signature(type(feature).__init__).parameters
  for name, parameter in hints.items():
    if name in ('self', 'activations'):
      continue
    value, hint = getattr(feature, name), parameter.annotation
    kind = hint.__args__[0] if isinstance(value, list) else hint
    values = value if isinstance(value, list) else [value]
    accepted = (int, float) if kind is float else kind
    assert all(isinstance(v, accepted) for v in values), name
  for bars in ('freq_hist', 'logits_hist'):
    heights, values = (
        getattr(feature, f'{bars}_data_bar_{x}') for x in ('heights', 'values')
    )
    assert len(heights) == len(values)
  assert np.linalg.norm(feature.vector) == pytest.approx(1, abs=1e-5)
  for example in feature.activations:
    assert len(example.tokens) == len(example.values)
    value = example.values[example.qualifying_token_index]
    # Of the bands, a firing is drawn; the strongest are maxima of their texts.
    is_strongest = example.bin_contains < 0
    assert value == max(example.values) if is_strongest else value > 0


def test_examples_and_sets_are_read_by_neuronpedias_client(targets):
  from neuronpedia import np_activation, np_source_set

  for target in targets:
    source_set = json.loads((target / 'sourceset.jsonl').read_text())
    source = json.loads((target / 'source.jsonl').read_text())
    theirs = np_source_set.SourceSet.from_np_db_json(
        {'urls': [], **source_set, 'sources': [source]}
    )
    assert theirs.sources[0].id == target.name
    examples = rows(target / 'activations/batch-0.jsonl.gz')
    # The client refuses the -1 by which SAEDashboard marks the strongest ones.
    banded = [row for row in examples if row['binContains'] >= 0]
    assert banded and len(banded) < len(examples)
    for row in banded:
      # The server sends the column `layer` of its database as `source`.
      sent = row | {'source': row['layer']}
      activation = np_activation.Activation.from_np_db_json(sent)
      assert activation.source == target.name
      assert activation.quantileMin <= activation.quantileMax
