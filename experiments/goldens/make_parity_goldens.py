"""Writes the activations and logits of transformers on tiny Gemma models.

The models are random and have the structure of Gemma 2's 2B, 9B and 27B and of
Gemma 3's 270M, 4B and 27B (`tests/lm/huggingface_folders.py`). Rows are longer than the attention window
and contain BOS, padding and several documents.

    python -m experiments.goldens.make_parity_goldens

The command writes tests/evals/parity_goldens/NAME.npz with the token ids, the
logits and the activations of all four sites of every layer. It needs the extra
`interop` and takes seconds. `tests/evals/parity_test.py` compares the package's
model with these files.
"""

import pathlib
import tempfile

from absl import app, flags
import numpy as np

from jumprelu.evals import parity
from tests.lm import huggingface_folders

_OUT = flags.DEFINE_string(
    'out', 'tests/evals/parity_goldens', 'Output folder.'
)
_LENGTH = 16


def main(argv):
  """Writes one file per model."""
  del argv
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  prefixes = huggingface_folders.PREFIXES
  configs = huggingface_folders.CONFIGS | huggingface_folders.GEMMA3_CONFIGS
  for name, config in configs.items():
    text = config.get('text_config', config)
    tokens = parity.make_tokens(text['vocab_size'], _LENGTH)
    with tempfile.TemporaryDirectory() as folder:
      huggingface_folders.write(folder, config, prefix=prefixes.get(name))
      values = parity.theirs(folder, tokens)
    np.savez_compressed(out / f'{name}.npz', token_ids=tokens, **values)
    print(f'{out / name}.npz: {len(values)} arrays')


if __name__ == '__main__':
  app.run(main)
