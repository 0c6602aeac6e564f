"""Writes what transformers computes on tiny random Gemma 2 models.

The models are like the 2B, the 9B and the 27B (`tests/lm/huggingface_folders`);
the text is longer than the window, with BOS, padding and several documents a
row. Cost: seconds, and the extra `interop`.

    python -m experiments.goldens.make_parity_goldens

writes tests/evals/parity_goldens/NAME.npz: the token ids, the logits, and the four sites
of every layer. `tests/lm/parity_test.py` compares ours with them.
"""

import pathlib
import tempfile

from absl import app, flags
import numpy as np

from jumprelu.evals import parity
from tests.lm import huggingface_folders

_OUT = flags.DEFINE_string(
    'out', 'tests/evals/parity_goldens', 'Folder to write to.'
)
_LENGTH = 16


def main(argv):
  """Writes a file a model."""
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
