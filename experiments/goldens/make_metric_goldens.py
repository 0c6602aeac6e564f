"""Writes what SAELens and SAEBench say of SAEs on a tiny random Gemma 2.

Their evaluations run on the token ids, the SAEs and the model on which ours
runs in `tests/evals/peers_test.py`. SAEBench wants a NumPy older than ours, so
the peers have an environment of their own, which is all that they need:

    python3 -m venv peers
    peers/bin/pip install sae-lens==6.54.12 sae-bench==0.6.0
    python -m experiments.goldens.make_metric_goldens --peers=peers/bin/python

writes tests/evals/goldens/peers.npz and peers.json. Where torch is one for the
CPU alone, `peers/bin/pip uninstall torchvision`, which does not fit it and which
neither evaluation needs. Cost: half a minute, and gigabytes of disk for torch.

The same interpreter serves the live tests; without it, the extra `interop` has
what SAELens' half of them needs:

    JUMPRELU_PEERS_PYTHON=peers/bin/python pytest -m interop tests/evals
"""

import json
import pathlib
import tempfile

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import lm
from jumprelu.data import packing
from jumprelu.evals import parity
from tests.evals import peers

_PEERS = flags.DEFINE_string(
    'peers', None, 'Python interpreter that has both peers.', required=True
)
_OUT = flags.DEFINE_string('out', str(peers.FOLDER), 'Folder to write to.')

_SITES = (lm.Site.RESID_POST, lm.Site.MLP_OUT, lm.Site.ATTN_HEADS)
_LENGTH, _WIDTH = 24, 48
# Of documents: batches of four hold different numbers of tokens.
_LENGTHS = (24, 9, 17, 24, 6, 24, 20, 13, 24, 11)


def make_tokens(model: lm.LanguageModel) -> dict[str, np.ndarray]:
  """Makes rows of one document each, padded.

  The model writes them itself: it is at a loss where something is ablated.
  """
  rows = _sample(model, np.random.RandomState(5), 22)
  ended, cut = rows[:10], rows[10:]
  # Documents as long as a row go on in the next one, as packing has it.
  for row, length in zip(ended, _LENGTHS, strict=True):
    row[length:] = packing.PAD
    if length < _LENGTH:
      row[length - 1] = packing.EOS
  # Their last token has PAD for its target.
  for row, length in zip(cut, _LENGTHS, strict=False):
    row[length:] = packing.PAD
  return {'ended': ended, 'cut': cut}


def _sample(model, rng, count):
  """Returns rows that start with BOS and hold no other special token."""
  places = {
      'positions': jnp.broadcast_to(
          jnp.arange(_LENGTH, dtype=jnp.int32)[None], (count, _LENGTH)
      ),
      'segments': jnp.ones((count, _LENGTH), jnp.int32),
  }
  run = jax.jit(lambda rows: lm.logits(model, model.params, rows, **places))
  rows = np.full((count, _LENGTH), packing.UNK, np.int32)
  rows[:, 0] = packing.BOS
  for i in range(1, _LENGTH):
    logits = np.asarray(run(rows))[:, i - 1, packing.UNK + 1 :]
    noise = rng.gumbel(size=logits.shape)
    rows[:, i] = (logits + noise).argmax(-1) + packing.UNK + 1
  return rows


def make_saes(
    model: lm.LanguageModel, tokens: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
  """Makes an SAE for each site, and the two that ablate."""
  both = np.concatenate([tokens['ended'], tokens['cut']])
  values, keep = parity.ours(model, both), packing.keep_mask(both)
  taps = {site: lm.Tap(peers.LAYER, site) for site in _SITES}
  x = {site: values[parity.key(tap)] for site, tap in taps.items()}
  found = {
      str(site): make_sae(x[site][keep], seed=seed)
      for seed, site in enumerate(_SITES)
  }
  # Latents that never fire: what is spliced in is b_dec.
  dead = found['resid_post'] | {'threshold': np.full(_WIDTH, 1e9, np.float32)}
  kept = packing.keep_mask(tokens['ended'])
  mean = x[lm.Site.RESID_POST][: len(kept)][kept].mean(0)
  for name, vector in (('zero', np.zeros_like(mean)), ('mean', mean)):
    found[name] = dead | {'b_dec': vector}
  return found


def make_sae(x: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
  """Makes a random SAE that reconstructs activations [tokens, model] somewhat.

  Thresholds lie in wide gaps between pre-activations: no rounding of a forward
  pass makes a latent fire or not.
  """
  rng = np.random.RandomState(seed)
  W_dec = rng.normal(size=(_WIDTH, x.shape[1]))
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  mean = x.mean(0, dtype=np.float64)
  pre_acts = (x - mean) @ W_dec.T
  upper = np.sort(pre_acts, 0)[int(0.7 * len(x)) : int(0.95 * len(x))]
  gap = np.diff(upper, axis=0).argmax(0)
  columns = np.arange(_WIDTH)
  width = (upper[gap + 1, columns] - upper[gap, columns]).min()
  assert width > 1e-3, width
  threshold = (upper[gap, columns] + upper[gap + 1, columns]) / 2
  sparse = np.where(pre_acts > threshold, pre_acts, 0) @ W_dec
  # Nine tenths of the gain with the least error: gamma is not 1.
  gain = 0.9 * (sparse * (x - mean)).sum() / np.square(sparse).sum()
  params = {
      'W_enc': gain * W_dec.T,
      'b_enc': -gain * W_dec @ mean,
      'W_dec': W_dec,
      'b_dec': mean,
      'threshold': gain * threshold,
  }
  return {name: value.astype(np.float32) for name, value in params.items()}


def main(argv):
  """Writes both files."""
  del argv
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place) / 'model'
    model = peers.load_model(folder)
    tokens = make_tokens(model)
    arrays = {'cases': np.asarray(json.dumps(peers.CASES))} | tokens
    for name, params in make_saes(model, tokens).items():
      arrays |= {f'{name}/{key}': value for key, value in params.items()}
    inputs = pathlib.Path(place) / 'inputs.npz'
    np.savez(inputs, **arrays)
    numbers = {}
    for peer in peers.NAMES:
      numbers[peer], found = peers.run_peer(
          peer, python=_PEERS.value, inputs=inputs, folder=folder
      )
      peers.check_logits(model, tokens, found['logits'])
      arrays |= {f'{peer}/{key}': value for key, value in found.items()}
  np.savez_compressed(out / 'peers.npz', **arrays)
  text = json.dumps(numbers, indent=1)
  (out / 'peers.json').write_text(text + '\n', 'utf-8')


if __name__ == '__main__':
  app.run(main)
