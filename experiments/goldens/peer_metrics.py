"""The metrics of SAELens and SAEBench for SAEs on a tiny Gemma 2.

This script runs in an interpreter that has SAELens and SAEBench, the peers. It
imports nothing from this repository, so that only the peers' code computes the
metrics. `experiments/goldens/make_metric_goldens.py` starts it and describes
how to install such an interpreter.

    python experiments/goldens/peer_metrics.py PEER INPUTS FOLDER OUT

PEER is `saelens` (`sae_lens.evals.run_evals`) or `saebench`
(`sae_bench.evals.core.main.run_evals`), INPUTS the file of stored arrays,
FOLDER a model in Hugging Face's format and OUT the output file. The output is a
JSON object with the `versions` of packages, the `logits` of the first rows, and
all metrics of every case (`cases`). NaN metrics are null.

The model is loaded into TransformerLens without weight processing, as in both
peers. Only the peers' token stores are replaced, because those read and
tokenise a data set.
"""

from importlib import metadata
import json
import math
import os
import pathlib
import sys

import numpy as np

# Offline, so that SAEBench's loader uses the local file instead of downloading.
os.environ['HF_HUB_OFFLINE'] = '1'

# The ids of PAD, EOS and BOS.
_SPECIAL = (0, 1, 2)
# Number of rows whose logits are written.
_NUM_LOGITS = 3
_HOOKS = {
    'resid_post': 'blocks.{}.hook_resid_post',
    'mlp_out': 'blocks.{}.hook_mlp_out',
    'attn_heads': 'blocks.{}.attn.hook_z',
}
_PACKAGES = (
    'numpy',
    'sae-bench',
    'sae-lens',
    'torch',
    'transformer-lens',
    'transformers',
)


class Rows:
  """Rows of token ids with the interface of the peers' activation store."""

  def __init__(self, tokens, batch):
    import torch

    self.context_size = tokens.shape[1]
    self.store_batch_size_prompts = batch
    self.num_batches = -(-len(tokens) // batch)
    self._tokens = torch.from_numpy(tokens.astype(np.int64))
    self.reset_input_dataset()

  def reset_input_dataset(self):
    """Restarts at the first row."""
    self._next = iter(self._tokens.split(self.store_batch_size_prompts))

  def get_batch_tokens(self, batch_size=None):
    """Returns the next batch of rows; the last batch may be smaller."""
    assert batch_size in (None, self.store_batch_size_prompts)
    return next(self._next)


def load_model(folder):
  """Returns the Gemma 2 model of a Hugging Face folder as HookedTransformer."""
  import torch
  import transformer_lens
  from transformer_lens.pretrained import weight_conversions
  import transformers

  theirs = transformers.Gemma2ForCausalLM.from_pretrained(
      folder, dtype=torch.float32, local_files_only=True
  )
  fields = json.loads((pathlib.Path(folder) / 'config.json').read_text())
  layers = fields['num_hidden_layers']
  # TransformerLens' settings for Gemma 2, with the sizes of the folder.
  config = transformer_lens.HookedTransformerConfig(
      d_model=fields['hidden_size'],
      d_head=fields['head_dim'],
      n_heads=fields['num_attention_heads'],
      n_key_value_heads=fields['num_key_value_heads'],
      d_mlp=fields['intermediate_size'],
      d_vocab=fields['vocab_size'],
      n_layers=layers,
      n_ctx=fields['max_position_embeddings'],
      eps=fields['rms_norm_eps'],
      act_fn=fields['hidden_activation'],
      normalization_type='RMS',
      positional_embedding_type='rotary',
      rotary_base=int(fields['rope_theta']),
      use_attn_scale=True,
      attn_scale=math.sqrt(fields['query_pre_attn_scalar']),
      window_size=fields['sliding_window'],
      use_local_attn=True,
      attn_types=[('local', 'global')[i % 2] for i in range(layers)],
      attn_scores_soft_cap=fields['attn_logit_softcapping'],
      output_logits_soft_cap=fields['final_logit_softcapping'],
      gated_mlp=True,
      final_rms=True,
      use_normalization_before_and_after=True,
      original_architecture='Gemma2ForCausalLM',
      device='cpu',
      dtype=torch.float32,
  )
  model = transformer_lens.HookedTransformer(config)
  model.load_and_process_state_dict(
      weight_conversions.convert_gemma_weights(theirs, config),
      fold_ln=False,
      center_writing_weights=False,
      center_unembed=False,
      fold_value_biases=False,
  )
  return model.eval()


def make_sae(case, params):
  """Returns a JumpReLU SAE of SAELens with these parameters."""
  import sae_lens
  import torch

  d_in, width = params['W_enc'].shape
  sae = sae_lens.JumpReLUSAE(
      sae_lens.JumpReLUSAEConfig(
          d_in=d_in,
          d_sae=width,
          dtype='float32',
          device='cpu',
          apply_b_dec_to_input=False,
          normalize_activations='none',
          reshape_activations=(
              'hook_z' if case['site'] == 'attn_heads' else 'none'
          ),
          metadata=sae_lens.saes.sae.SAEMetadata(
              hook_name=_HOOKS[case['site']].format(case['layer']),
              model_name='tiny',
          ),
      )
  )
  sae.load_state_dict({k: torch.from_numpy(v) for k, v in params.items()})
  return sae


def load_released(case, params, folder):
  """Returns an SAE, read by SAEBench's loader of Gemma Scope's files."""
  from sae_bench.custom_saes import jumprelu_sae
  import torch

  file = f'layer_{case["layer"]}/params.npz'
  (folder / file).parent.mkdir(parents=True, exist_ok=True)
  np.savez(folder / file, **params)
  return jumprelu_sae.load_gemma_scope_jumprelu_sae(
      'stored/here',
      file,
      case['layer'],
      'tiny',
      torch.device('cpu'),
      torch.float32,
      local_dir=str(folder),
  )


def by_saelens(model, case, params, store, folder):
  """Returns SAELens' metrics of one case: scalars, and metrics per latent."""
  from sae_lens import evals
  from sae_lens.training import activation_scaler

  del folder
  return evals.run_evals(
      make_sae(case, params),
      store,
      model,
      activation_scaler=activation_scaler.ActivationScaler(),
      eval_config=evals.get_eval_everything_config(
          batch_size_prompts=store.store_batch_size_prompts,
          n_eval_reconstruction_batches=store.num_batches,
          n_eval_sparsity_variance_batches=store.num_batches,
      ),
      exclude_special_tokens=_SPECIAL,
  )


def by_saebench(model, case, params, store, folder):
  """Returns SAEBench's metrics of one case, with its published settings."""
  from sae_bench.evals.core import eval_config, main
  from sae_bench.sae_bench_utils import general_utils

  if case['site'] == 'resid_post':
    sae = load_released(case, params, folder)
  else:  # SAEBench's SAE class does not support attention heads.
    sae = make_sae(case, params)
  _, sae, _ = general_utils.load_and_format_sae('tiny', sae, 'cpu')
  config = eval_config.CoreEvalConfig(
      batch_size_prompts=store.store_batch_size_prompts,
      n_eval_reconstruction_batches=store.num_batches,
      n_eval_sparsity_variance_batches=store.num_batches,
      compute_kl=True,
      compute_ce_loss=True,
      compute_l2_norms=True,
      compute_sparsity_metrics=True,
      compute_variance_metrics=True,
      compute_featurewise_density_statistics=True,
      exclude_special_tokens_from_reconstruction=True,
  )
  return main.run_evals(sae, store, model, config, ignore_tokens=set(_SPECIAL))


_PEERS = {'saelens': by_saelens, 'saebench': by_saebench}


def run(peer, inputs, folder, scratch):
  """Returns the versions, logits and metrics of a peer, ready for JSON.

  Args:
    peer: A name of `_PEERS`.
    inputs: The file of arrays; its array `cases` is a table in JSON.
    folder: The folder of the model.
    scratch: A folder for temporary files.
  """
  import torch

  with np.load(inputs, allow_pickle=False) as stored:
    arrays = {name: stored[name] for name in stored.files}
  model = load_model(folder)
  results = {'versions': _versions(), 'cases': {}}
  for name, case in json.loads(str(arrays['cases'])).items():
    prefix = f'{case["sae"]}/'
    params = {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    store = Rows(arrays[case['tokens']], case['sequences'])
    scalars, by_latent = _PEERS[peer](
        model, case, params, store, scratch / name
    )
    scalars.pop('token_stats')
    results['cases'][name] = {
        key: None if math.isnan(value) else value
        for group in scalars.values()
        for key, value in group.items()
    } | {'feature_density': by_latent['feature_density']}
  tokens = torch.from_numpy(arrays['ended'][:_NUM_LOGITS].astype(np.int64))
  with torch.no_grad():
    results['logits'] = model(tokens).tolist()
  return results


def _versions():
  """Returns the versions of the installed packages among `_PACKAGES`."""
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return versions


def main(peer, inputs, folder, out):
  """Writes the results of a peer to the file `out`."""
  out = pathlib.Path(out)
  results = run(peer, inputs, folder, out.parent / 'saes')
  out.write_text(json.dumps(results))


if __name__ == '__main__':
  main(*sys.argv[1:])
