"""Exports of features: every number against the features they come from."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
from safetensors import numpy as safetensors

from jumprelu import errors
from jumprelu.features.exports import delphi, graph_viewer, neuronpedia
from tests.features.exports import small_features
from tests.release.exports import small

PIECES = small_features.PIECES


@pytest.fixture(scope='module')
def source():
  return small.make(path='resid_post/a')


@pytest.fixture(scope='module')
def folder(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp('features') / 'features'
  folder.mkdir()
  return small_features.write(folder, [source])


def lines(path):
  data = gzip.decompress(path.read_bytes()).decode()
  return [json.loads(line) for line in data.splitlines()]


def test_the_cache_of_delphi_has_every_firing_of_the_passages(
    folder, source, tmp_path
):
  (warning,) = delphi.write([source], tmp_path, folder=folder)
  assert 'the passages have 10 tokens' in warning
  module = tmp_path / 'latents' / 'resid_post.a'
  cache = safetensors.load_file(module / '0_11.safetensors')
  dense = np.zeros((3, 4, 12))
  for text, index, latents, values in small_features.firings():
    dense[text, index, latents] = values
  restored = np.zeros_like(dense)
  restored[tuple(cache['locations'].T.astype(int))] = cache['activations']
  np.testing.assert_array_equal(restored, dense)
  assert len(cache['locations']) == np.count_nonzero(dense)
  assert cache['locations'].dtype == np.uint16
  assert cache['tokens'].tolist() == [[3, 7, 6, 4], [5, 3, 7, 7], [4, 6, 0, 0]]
  config = json.loads((module / 'config.json').read_text())
  assert config['model_name'] == 'google/gemma-2-2b'
  assert config['ctx_len'] == 4 and config['n_tokens'] == 12


def test_neuronpedias_rows_have_the_latents_and_their_examples(
    folder, source, tmp_path
):
  neuronpedia.write([source], tmp_path, folder=folder, creator='me')
  name = '3-jumprelu-res-12__l0-3'
  target = tmp_path / 'gemma-2-2b' / name
  tables = {
      kind: json.loads((target / f'{kind}.jsonl').read_text())
      for kind in ('release', 'model', 'sourceset', 'source')
  }
  assert tables['source']['id'] == name
  assert tables['source']['setName'] == tables['sourceset']['name']
  assert tables['sourceset']['releaseName'] == tables['release']['name']
  assert tables['source']['num_prompts'] == 4
  rows = lines(target / 'features/batch-0.jsonl.gz')
  assert [row['index'] for row in rows] == [str(i) for i in range(12)]
  row = rows[1]
  assert row['layer'] == name and row['modelId'] == 'gemma-2-2b'
  assert row['hookName'] == 'blocks.3.hook_resid_post'
  assert row['pos_str'] == [' cat', 'é'] and row['pos_values'] == [2.0, 1.0]
  assert row['neg_str'] == ['</script>'] and row['neg_values'] == [-1.5]
  assert row['frac_nonzero'] == 0.3 and row['maxActApprox'] == 2.5
  # Bins 0.5 to 1, and from 2 to the largest activation.
  assert row['freq_hist_data_bar_values'] == [0.75, 2.25]
  assert row['freq_hist_data_bar_heights'] == [2, 1]
  W_dec = source.released.params['W_dec']
  np.testing.assert_array_equal(np.float32(row['vector']), W_dec[1])
  first = row['neuron_alignment_indices'][0]
  assert first == np.abs(W_dec[1]).argmax()
  examples = lines(target / 'activations/batch-0.jsonl.gz')
  examples = [row for row in examples if row['index'] == '1']
  top, weak, strong = examples
  assert top['tokens'] == [' the', ' cat', '\n']
  assert top['values'] == [0.0, 2.5, 0.25]
  assert top['maxValue'] == 2.5 and top['maxValueTokenIndex'] == 1
  assert top['binContains'] == -1 and top['binMax'] == 2.5
  assert [weak['binMin'], weak['binMax'], weak['binContains']] == [0.5, 1, 0.5]
  assert [strong['binMin'], strong['binMax']] == [1.0, 2.5]
  identities = {row['id'] for row in examples}
  assert len(identities) == 3 and all(len(i) == 25 for i in identities)


def test_a_latent_that_never_fires_has_a_row_and_no_example(
    folder, source, tmp_path
):
  neuronpedia.write([source], tmp_path, folder=folder)
  (target,) = (tmp_path / 'gemma-2-2b').iterdir()
  row = lines(target / 'features/batch-0.jsonl.gz')[3]
  assert row['maxActApprox'] == 0 and row['freq_hist_data_bar_values'] == []
  examples = lines(target / 'activations/batch-0.jsonl.gz')
  assert '3' not in {row['index'] for row in examples}


def test_two_saes_of_one_source_id_are_refused(tmp_path):
  sources = [small.make(path=p) for p in ('a', 'b')]
  folder = small_features.write(tmp_path, sources)
  (tmp_path / 'out').mkdir()
  with pytest.raises(errors.UserError, match='b has the same source id'):
    neuronpedia.write(sources, tmp_path / 'out', folder=folder)


def test_records_of_the_graph_viewer_are_read_at_their_offsets(tmp_path):
  origin = small.TRANSCODER._replace(layer=1)
  source = small.make(path='t', origin=origin)
  folder = small_features.write(tmp_path, [source])
  (tmp_path / 'out').mkdir()
  graph_viewer.write([source], tmp_path / 'out', folder=folder)
  features = tmp_path / 'out' / 'features'
  index = json.loads(gzip.decompress((features / 'index.json.gz').read_bytes()))
  assert index[0] is None and index[1]['filename'] == 'layer_1.bin'
  data, offsets = (features / 'layer_1.bin').read_bytes(), index[1]['offsets']
  assert len(offsets) == 13 and offsets[-1] == len(data)
  for latent in range(12):
    start, end = offsets[latent : latent + 2]
    (size,) = struct.unpack('<I', data[start : start + 4])
    assert size == end - start - 4
    record = json.loads(zlib.decompress(data[start + 4 : end]))
    assert record['index'] == latent
    groups = {g['quantile_name']: g for g in record['examples_quantiles']}
    if latent == 1:
      assert list(groups) == [
          'Top activations', 'Band 2', 'Band 1', 'No activation',
      ]  # fmt: skip
      (example,) = groups['Top activations']['examples']
      assert example['tokens'] == [' the', ' cat', '\n']
      assert example['tokens_acts_list'] == [0.0, 2.5, 0.25]
      assert example['train_token_ind'] == 1
      assert record['top_logits'] == [' cat', 'é']
      assert record['act_max'] == 2.5


def test_features_of_other_saes_are_refused(folder, tmp_path):
  other = small.make(path='resid_post/a')
  other.released.params['b_enc'] = other.released.params['b_enc'] + 1
  for source, reason in (
      (other, 'resid_post/a are of another SAE'),
      (small.make(path='b'), 'b are missing'),
  ):
    with pytest.raises(errors.UserError, match=reason):
      delphi.write([source], tmp_path, folder=folder)
  assert not list(tmp_path.iterdir())
