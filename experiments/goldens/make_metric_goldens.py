"""Writes the metrics of SAELens and SAEBench for SAEs on a tiny Gemma 2.

Both libraries (peers) evaluate the same token ids, SAEs and random model that
this project evaluates in `tests/evals/peers_test.py`. They need a separate
environment, because SAEBench requires an older NumPy:

    python3 -m venv peers
    peers/bin/pip install sae-lens==6.54.12 sae-bench==0.6.0
    python -m experiments.goldens.make_metric_goldens --peers=peers/bin/python

The last command writes tests/evals/goldens/peers.npz and peers.json. It takes
half a minute; torch takes gigabytes of disk. If torch is a build for CPUs only,
run `peers/bin/pip uninstall torchvision` before it, because torchvision is
incompatible with such a build. Neither evaluation needs torchvision.

The tests that run the peers use the same interpreter:

    JUMPRELU_PEERS_PYTHON=peers/bin/python pytest -m interop tests/evals

Without this interpreter, the tests against SAELens run if the extra `interop`
is installed.
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
    'peers', None, 'Python interpreter with both peers.', required=True
)
_OUT = flags.DEFINE_string('out', str(peers.FOLDER), 'Output folder.')

_SITES = (lm.Site.RESID_POST, lm.Site.MLP_OUT, lm.Site.ATTN_HEADS)
_LENGTH, _WIDTH = 24, 48
# Lengths of the documents. Batches of four contain different numbers of tokens.
_LENGTHS = (24, 9, 17, 24, 6, 24, 20, 13, 24, 11)


def make_tokens(model: lm.LanguageModel) -> dict[str, np.ndarray]:
  """Returns padded rows of one document each: with EOS at the end, and without.

  The rows are sampled from the model, so that ablations increase its loss.
  """
  rows = _sample(model, np.random.RandomState(5), 22)
  ended, truncated = rows[:10], rows[10:]
  # Documents as long as a row have no EOS, as if they continued in the next
  # row.
  for row, length in zip(ended, _LENGTHS, strict=True):
    row[length:] = packing.PAD
    if length < _LENGTH:
      row[length - 1] = packing.EOS
  # The target of a truncated document's last token is PAD.
  for row, length in zip(truncated, _LENGTHS, strict=False):
    row[length:] = packing.PAD
  return {'ended': ended, 'cut': truncated}


def _sample(model, rng, count):
  """Returns sampled rows with BOS first and no other special token."""
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
  """Returns one SAE per site, and two SAEs that ablate their site."""
  both = np.concatenate([tokens['ended'], tokens['cut']])
  values, keep = parity.ours(model, both), packing.keep_mask(both)
  taps = {site: lm.Tap(peers.LAYER, site) for site in _SITES}
  x = {site: values[parity.key(tap)] for site, tap in taps.items()}
  saes = {
      str(site): make_sae(x[site][keep], seed=seed)
      for seed, site in enumerate(_SITES)
  }
  # No latent of these SAEs fires, so the reconstruction is b_dec.
  dead = saes['resid_post'] | {'threshold': np.full(_WIDTH, 1e9, np.float32)}
  kept = packing.keep_mask(tokens['ended'])
  mean = x[lm.Site.RESID_POST][: len(kept)][kept].mean(0)
  for name, vector in (('zero', np.zeros_like(mean)), ('mean', mean)):
    saes[name] = dead | {'b_dec': vector}
  return saes


def make_sae(x: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
  """Returns a random SAE that roughly reconstructs `x`, [tokens, model].

  Thresholds are in the middle of wide gaps between pre-activations, so that
  rounding errors never change which latents fire.
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
  # The gain is nine tenths of the best one, so that gamma is not 1.
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
  """Writes peers.npz and peers.json."""
  del argv
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / 'model'
    model = peers.load_model(folder)
    tokens = make_tokens(model)
    arrays = {'cases': np.asarray(json.dumps(peers.CASES))} | tokens
    for name, params in make_saes(model, tokens).items():
      arrays |= {f'{name}/{key}': value for key, value in params.items()}
    inputs = pathlib.Path(scratch) / 'inputs.npz'
    np.savez(inputs, **arrays)
    numbers = {}
    for peer in peers.NAMES:
      numbers[peer], peer_arrays = peers.run_peer(
          peer, python=_PEERS.value, inputs=inputs, folder=folder
      )
      peers.check_logits(model, tokens, peer_arrays['logits'])
      arrays |= {f'{peer}/{key}': v for key, v in peer_arrays.items()}
  np.savez_compressed(out / 'peers.npz', **arrays)
  text = json.dumps(numbers, indent=1)
  (out / 'peers.json').write_text(text + '\n', 'utf-8')


if __name__ == '__main__':
  app.run(main)
