"""circuit-tracer opens our transcoder sets, and the features of its viewer."""

import dataclasses
import gzip
import json
import zlib

import pytest

from jumprelu.features.exports import graph_viewer
from jumprelu.release import formats
from tests.features.exports import small_features
from tests.release.exports import small

pytestmark = pytest.mark.readers

TOOL = 'circuit-tracer'


def at_layers(sources):
  """Returns the transcoders as those of layers 0, 1, ..."""

  def moved(released, layer):
    origin = released.origin._replace(layer=layer)
    return dataclasses.replace(released, origin=origin)

  return [
      dataclasses.replace(source, released=moved(source.released, layer))
      for layer, source in enumerate(sources)
  ]


def load(sources, cache):
  """Exports a set, and loads it by its name in the library's cache."""
  from circuit_tracer.utils import hf_utils

  small.export(sources, cache / 'me' / 'set', to='circuit_tracer')
  return hf_utils.load_transcoder_from_hub('me/set', cache_dir=str(cache))


@pytest.mark.parametrize('variant, skip', small.TRANSCODERS)
@pytest.mark.parametrize('origin', [small.TRANSCODER, small.WITH_GAIN])
def test_the_library_opens_a_set(
    tmp_path, activations, agree, origin, variant, skip
):
  sources = at_layers(
      [small.make(variant, origin=origin, skip=skip, d_in=128)] * 2
  )
  transcoders, config = load(sources, tmp_path)
  assert len(transcoders) == 2 and transcoders.skip_connection == skip
  assert config['feature_output_hook'] == 'hook_mlp_out'
  hook = 'mlp.hook_in' if origin.input_gain else 'ln2.hook_normalized'
  assert transcoders.feature_input_hook == hook
  for theirs, source in zip(transcoders, sources, strict=True):
    # Large enough for the threshold of BatchTopK.
    random = 8 * small.inputs(128)
    for x in (random, 30 * activations['transcoder']):
      agree(TOOL, theirs, source.released, x)


def test_the_library_opens_the_demos_transcoders(
    tmp_path, suite, activations, agree
):
  sources = at_layers([s for s in suite.values() if s.transcodes])
  assert len(sources) == 3
  transcoders, _ = load(sources, tmp_path)
  for theirs, source in zip(transcoders, sources, strict=True):
    for x in (None, activations['transcoder']):
      agree(TOOL, theirs, source.released, x)


@pytest.mark.parametrize(
    'to, origin, skip',
    [
        ('gemma_scope', small.TRANSCODER, False),
        ('gemma_scope_2', small.WITH_GAIN, False),
        ('gemma_scope_2', small.WITH_GAIN, True),
    ],
)
def test_its_loaders_of_gemma_scope_open_exports(
    tmp_path, agree, to, origin, skip
):
  from circuit_tracer.transcoder import single_layer_transcoder as loaders

  source = small.make(origin=origin, skip=skip)
  small.export([source], tmp_path / 'out', to=to)
  ((path, _),) = formats.find(tmp_path / 'out').items()
  (file,) = (tmp_path / 'out' / path).glob('params.*')
  theirs = getattr(loaders, f'load_{to}_transcoder')(str(file), 3)
  agree(TOOL, theirs, source.released)


def test_records_of_the_viewer_are_its_models(tmp_path):
  from circuit_tracer.frontend import feature_models

  source = small.make(path='t', origin=small.TRANSCODER._replace(layer=0))
  folder = small_features.write(tmp_path, [source])
  out = tmp_path / 'out'
  out.mkdir()
  graph_viewer.write([source], out, folder=folder)
  features = out / 'features'
  (layer,) = json.loads(
      gzip.decompress((features / 'index.json.gz').read_bytes())
  )
  data = (features / layer['filename']).read_bytes()
  offsets = layer['offsets']
  for start, end in zip(offsets[:-1], offsets[1:], strict=True):
    fields = json.loads(zlib.decompress(data[start + 4 : end]))
    record = feature_models.Model.model_validate(fields)
    examples = [e for q in record.examples_quantiles for e in q.examples]
    assert all(len(e.tokens) == len(e.tokens_acts_list) for e in examples)
