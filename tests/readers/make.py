"""Writes the files that the tests of readers need, from the output of a demo.

    python -m tests.readers.make --demo=jumprelu_demo --out=DIR

This needs the extra `train`, which the environment of the readers lacks.

    DIR/model             the embedded model in Hugging Face's format
    DIR/rows.npy          rows of token ids, each a passage of the demo's text
    DIR/activations.npz   our activations and logits on the first rows
    DIR/saebench.jsonl    our measure `saebench` of each SAE on the rows
"""

import argparse
import pathlib
import shutil

import numpy as np

from experiments.nano import finetune_nano
from jumprelu import evals, lm
from jumprelu.data import packing
from jumprelu.evals import parity
from jumprelu.features import reading
from jumprelu.files import json_files
from jumprelu.release.exports import source

MODEL = 'gemma2_nano'
ROWS, SEQUENCES, POSITIONS = 32, 8, 64
# Rows whose activations are written.
FIRST = 2


def write(demo: pathlib.Path, out: pathlib.Path) -> None:
  """Writes the files."""
  # The environment of the readers, which imports this module, lacks packages
  # that an evaluation needs.
  from jumprelu.evals import evaluate
  from tests.evals import peers

  out.mkdir(parents=True)
  model = lm.load(MODEL)
  (out / 'model').mkdir()
  finetune_nano.write_huggingface(model.config, model.params, out / 'model')
  shutil.copy(model.tokenizer_path, out / 'model')
  rows = _rows(demo / 'features')
  np.save(out / 'rows.npy', rows)
  np.savez(out / 'activations.npz', **parity.ours(model, rows[:FIRST]))
  sources = [s for s in source.read(demo / 'release') if not s.transcodes]
  members = [
      evaluate.EvalMember(
          s.released.sae,
          s.released.params,
          lm.make_reads(str(s.released.origin.site), s.released.origin.layer),
          {'path': s.path},
      )
      for s in sources
  ]
  evaluated = evaluate.evaluate_members(
      model,
      members,
      held_out=peers.Rows(rows),
      config=evals.Config(lm_sequences=SEQUENCES),
      measures=('saebench',),
  )
  for row in evaluated.rows:
    json_files.append_line(out / 'saebench.jsonl', row)


def _rows(features: pathlib.Path) -> np.ndarray:
  """Returns rows of BOS and a passage without special tokens."""
  passages = reading.read_texts(features)['tokens'].to_pylist()
  rows = [
      [packing.BOS, *passage[: POSITIONS - 1]]
      for passage in passages
      if len(passage) >= POSITIONS - 1 and min(passage) > packing.UNK
  ]
  if len(rows) < SEQUENCES:
    raise ValueError(f'{features}: only {len(rows)} passages are long enough')
  count = min(ROWS, len(rows) // SEQUENCES * SEQUENCES)
  return np.asarray(rows[:count], np.int32)


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  for flag in ('demo', 'out'):
    parser.add_argument(f'--{flag}', type=pathlib.Path, required=True)
  write(**vars(parser.parse_args()))
