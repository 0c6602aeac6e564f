"""Comparison with peers: the cases, the language model and the command."""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

import numpy as np

from jumprelu import lm
from jumprelu.data import packing
from jumprelu.evals import parity, text
from jumprelu.lm import huggingface, weights
from tests.lm import huggingface_folders

FOLDER = pathlib.Path(__file__).parent / 'goldens'
EXPERIMENTS = pathlib.Path(__file__).parents[2] / 'experiments'
NAMES = ('saelens', 'saebench')
# The heads' total width differs from the model's width. The layer after the
# SAEs has global attention.
MODEL = huggingface_folders.CONFIGS['9b'] | {'num_hidden_layers': 2}
LAYER = 0

# Three batches of complete documents, and one batch of truncated documents.
_ENDED = {'tokens': 'ended', 'layer': LAYER, 'sequences': 4}
_CUT = {'tokens': 'cut', 'layer': LAYER, 'sequences': 12}
CASES = {
    'resid_post': {'site': 'resid_post', 'sae': 'resid_post', **_ENDED},
    # All latents are dead, so the output is b_dec, as in our ablations.
    'zero': {'site': 'resid_post', 'sae': 'zero', **_ENDED},
    'mean': {'site': 'resid_post', 'sae': 'mean', **_ENDED},
    'cut_resid_post': {'site': 'resid_post', 'sae': 'resid_post', **_CUT},
    'cut_zero': {'site': 'resid_post', 'sae': 'zero', **_CUT},
    'cut_mlp_out': {'site': 'mlp_out', 'sae': 'mlp_out', **_CUT},
    'cut_attn_heads': {'site': 'attn_heads', 'sae': 'attn_heads', **_CUT},
}


class Rows:
  """A token cache that an evaluation reads in the order of these rows."""

  user_prefix = ()

  def __init__(self, tokens):
    self.sequence_length = tokens.shape[1]
    self.tokens = tokens
    order = text.sample(self, tokens.size, sequences=1).rows
    self.tokens = tokens[np.argsort(order)]

  def __len__(self):
    return len(self.tokens)

  def tokens_at(self, indices):
    return self.tokens[indices]


def load_model(folder: pathlib.Path) -> lm.LanguageModel:
  """Returns the tiny model, loaded from a new Hugging Face folder."""
  huggingface_folders.write(folder, MODEL)
  config = lm.get_config(str(folder))
  params = weights.load(config, huggingface.Weights(folder, config))
  return lm.LanguageModel(config, params, folder / 'none', config.layers)


def check_logits(
    model: lm.LanguageModel,
    tokens: dict[str, np.ndarray],
    logits: np.ndarray,
) -> None:
  """Raises a ValueError if a peer's logits differ from ours by over 2e-5."""
  rows = tokens['ended'][: len(logits)]
  ours = parity.ours(model, rows)[parity.LOGITS]
  difference = np.abs(ours - logits)[rows != packing.PAD].max()
  if not difference <= 2e-5:
    raise ValueError(f'logits differ by {difference}: not the same model')


def run_peer(
    peer: str, *, python: str, inputs: pathlib.Path, folder: pathlib.Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns a peer's results from `experiments/goldens/peer_metrics.py`.

  Args:
    peer: One of `NAMES`.
    python: An interpreter that has the peer's package.
    inputs: The file of stored arrays.
    folder: The Hugging Face folder of the tiny model.

  Returns:
    The peer's package versions and metrics by case; and, as arrays, its logits
    and the firing frequencies of the latents by case.
  """
  with tempfile.TemporaryDirectory() as place:
    out = pathlib.Path(place) / 'results.json'
    script = EXPERIMENTS / 'goldens' / 'peer_metrics.py'
    command = [python, script, peer, inputs, folder, out]
    subprocess.run(list(map(str, command)), check=True, timeout=600)
    results = json.loads(out.read_text('utf-8'))
  arrays = {'logits': results.pop('logits')} | {
      name: numbers.pop('feature_density')
      for name, numbers in results['cases'].items()
  }
  return results, {k: np.asarray(v, np.float32) for k, v in arrays.items()}
