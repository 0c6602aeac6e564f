"""Writes the activations and logits of transformers on tiny Gemma 2 models.

The models are random and have the structure of the 2B, 9B and 27B models
(`tests/lm/huggingface_folders.py`). Rows are longer than the attention window
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
  for name, config in huggingface_folders.CONFIGS.items():
    tokens = parity.make_tokens(config['vocab_size'], _LENGTH)
    with tempfile.TemporaryDirectory() as folder:
      huggingface_folders.write(folder, config)
      values = parity.theirs(folder, tokens)
    np.savez_compressed(out / f'{name}.npz', token_ids=tokens, **values)
    print(f'{out / name}.npz: {len(values)} arrays')


if __name__ == '__main__':
  app.run(main)
