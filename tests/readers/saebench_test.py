"""SAEBench evaluates our exports, and its core results are our measure's."""

import json
import types

import numpy as np
import pytest

from experiments.goldens import peer_metrics
from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release import formats
from jumprelu.release.exports import saebench_adapter
from tests.readers import make
from tests.release.exports import small

pytestmark = pytest.mark.readers

TOOL = 'sae-bench'
PREFIX = 'saebench_'


@pytest.mark.parametrize('variant', ['jumprelu', 'gated', 'batch_topk'])
def test_the_object_computes_the_saes_latents(tmp_path, agree, variant):
  source = small.make(variant)
  small.export([source], tmp_path / 'out', to='saelens')
  adapted = saebench_adapter.load(tmp_path / 'out' / 'a')
  agree(TOOL, adapted, source.released)
  assert adapted.cfg.hook_name == 'blocks.3.hook_resid_post'
  assert adapted.cfg.hook_layer == 3 and adapted.cfg.d_sae == 12
  assert adapted.cfg.to_dict()['model_name'] == 'gemma-2-2b'
  assert adapted.W_dec.shape == (12, 8) and str(adapted.device) == 'cpu'


def test_a_transcoder_is_refused(tmp_path):
  source = small.make(origin=small.TRANSCODER)
  small.export([source], tmp_path / 'out', to='saelens')
  with pytest.raises(errors.UserError, match='is a transcoder'):
    saebench_adapter.load(tmp_path / 'out')


def test_its_loader_of_gemma_scope_opens_an_export(
    tmp_path, monkeypatch, agree
):
  from sae_bench.custom_saes import jumprelu_sae
  import torch

  source = small.make()
  small.export([source], tmp_path / 'out', to='gemma_scope')
  ((path, _),) = formats.find(tmp_path / 'out').items()
  monkeypatch.setattr(
      jumprelu_sae,
      'hf_hub_download',
      lambda repo_id, filename, **_: str(tmp_path / 'out' / filename),
  )
  theirs = jumprelu_sae.load_gemma_scope_jumprelu_sae(
      'me/x', f'{path}/params.npz', 3, 'gemma-2-2b', torch.device('cpu'),
      torch.float32,
  )  # fmt: skip
  agree(TOOL, theirs, source.released)


def evaluate(monkeypatch, tmp_path, made, saes):
  """Returns SAEBench's results of named SAEs, by name, from its files."""
  from sae_bench.evals.core import main
  from sae_lens.training import activations_store

  rows = np.load(made / 'rows.npy')
  (tmp_path / 'rows').mkdir()
  for row in rows.tolist():
    json_files.append_line(tmp_path / 'rows' / 'train.jsonl', {'tokens': row})
  model = peer_metrics.load_model(made / 'model')
  # SAEBench asks for the ids of special tokens, and never for text.
  model.tokenizer = types.SimpleNamespace(
      pad_token_id=0, eos_token_id=1, bos_token_id=2, padding_side='right'
  )
  # The embedded model has no name in TransformerLens.
  monkeypatch.setattr(
      main.HookedTransformer,
      'from_pretrained_no_processing',
      lambda *_, **__: model,
  )
  # Asks the hub for the data set's tokenizer.
  monkeypatch.setattr(
      activations_store,
      'validate_pretokenized_dataset_tokenizer',
      lambda **_: None,
  )
  # Some metrics are means of batches, so the rows keep their order.
  monkeypatch.setattr(
      activations_store.ActivationsStore,
      'shuffle_input_dataset',
      lambda self, seed: None,
  )
  batches = len(rows) // make.SEQUENCES
  main.multiple_evals(
      list(saes.items()),
      n_eval_reconstruction_batches=batches,
      n_eval_sparsity_variance_batches=batches,
      eval_batch_size_prompts=make.SEQUENCES,
      compute_featurewise_density_statistics=True,
      compute_featurewise_weight_based_metrics=True,
      exclude_special_tokens_from_reconstruction=True,
      dataset=str(tmp_path / 'rows'),
      context_size=rows.shape[1],
      output_folder=str(tmp_path / 'results'),
      device='cpu',
  )
  return {
      name: json_files.read_json(
          tmp_path / 'results' / f'{name}_custom_sae_eval_results.json'
      )
      for name in saes
  }


def scalars(result):
  return {
      name: value
      for category, values in result['eval_result_metrics'].items()
      if category not in ('token_stats', 'misc_metrics')
      for name, value in values.items()
  }


def test_its_core_results_of_the_demos_release_are_our_measure(
    tmp_path, monkeypatch, demo, made, suite, record
):
  import sae_lens

  sources = {s.path: s for s in suite.values() if not s.transcodes}
  small.export(list(sources.values()), tmp_path / 'out', to='saebench')
  saes = {
      path.replace('/', '_'): sae_lens.SAE.load_from_disk(
          tmp_path / 'out' / path
      )
      for path in sources
  }
  # The object of the adapter, at a site of each kind.
  adapted = {}
  for path, source in sources.items():
    adapted.setdefault(str(source.released.origin.site), path)
  for site, path in adapted.items():
    saes[f'adapted_{site}'] = saebench_adapter.load(demo / 'release' / path)
  results = evaluate(monkeypatch, tmp_path, made, saes)
  ours = {
      row['path']: row for row in json_files.read_lines(made / 'saebench.jsonl')
  }
  assert set(ours) == set(sources)
  paths = {path.replace('/', '_'): path for path in sources}
  paths |= {f'adapted_{site}': path for site, path in adapted.items()}
  for name, path in paths.items():
    values = scalars(results[name])
    wanted = {
        key.removeprefix(PREFIX): value
        for key, value in ours[path].items()
        if key.startswith(PREFIX)
    }
    assert set(values) == set(wanted) and len(wanted) == 17
    for key, value in wanted.items():
      record(TOOL, abs(values[key] / value - 1), 1e-4)


def test_our_core_results_are_read_by_its_schema(tmp_path, made, suite):
  import pydantic
  from sae_bench.evals.core import eval_output

  sources = [s for s in suite.values() if not s.transcodes]
  small.export(
      sources, tmp_path / 'out', to='saebench',
      results=made / 'saebench.jsonl',
  )  # fmt: skip
  files = sorted((tmp_path / 'out/eval_results/core').iterdir())
  assert len(files) == len(sources)
  reader = pydantic.TypeAdapter(eval_output.CoreEvalOutput)
  for file in files:
    result = reader.validate_python(json.loads(file.read_text()))
    assert result.eval_result_metrics.sparsity.l0 > 1
    assert len(result.eval_result_details) == 512
