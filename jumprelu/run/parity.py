"""Compares a model's activations and logits with those of transformers.

Runs random token ids through the model in a Hugging Face folder or a GGUF
file, first with transformers, then with this package, both in float32. The
ids are three rows: one long document, several short documents, and a document
followed by padding. Prints the differences at every site of every layer and
at the logits. Exits with code 70 if a difference exceeds --tolerance times
the array's largest value. Needs transformers and torch (`pip install
'jumprelu[interop]'`), and memory for one copy of the model in float32,
because the two copies are loaded one after the other, and for the activations
of both at all sites.

  jumprelu parity --model=models/gemma-2-2b
  jumprelu parity --model=models/gemma-3-270m-Q4_K_M.gguf
"""

import sys

from absl import flags

from jumprelu import errors
from jumprelu.run import flags as flags_lib
from jumprelu.run import main

POSITIONAL = 'model'


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  flags.DEFINE_string(
      'model',
      None,
      'Hugging Face folder or GGUF file, or a known name that refers to one.',
      flag_values=fv,
  )
  flags_lib.define_integer(
      fv,
      'length',
      64,
      'Positions per row. Rows longer than the sliding window test the window'
      ' too.',
      lower_bound=8,
  )
  flags_lib.define_integer(fv, 'seed', 0, 'Seed of the token ids.')
  flags.DEFINE_float(
      'tolerance',
      1e-4,
      "Largest allowed difference, relative to the array's largest value.",
      lower_bound=0,
      flag_values=fv,
  )


def run(fv: flags.FlagValues):
  """Prints the comparison.

  Raises:
    NumericalError: a difference exceeds the tolerance.
  """
  if not fv.model:
    raise errors.UserError(
        '--model is needed: a Hugging Face folder or FILE.gguf'
    )
  from jumprelu import lm
  from jumprelu.evals import parity

  path = lm.transformers_path(fv.model)
  tokens = parity.make_tokens(
      lm.get_config(fv.model).vocab, fv.length, seed=fv.seed
  )
  reference = parity.theirs(path, tokens)
  model = lm.load(fv.model)
  rows = parity.compare(
      parity.ours(model, tokens), reference, tokens=tokens, config=model.config
  )
  print(parity.table(rows, fv.tolerance))
  worst = max(rows, key=lambda row: row.relative)
  where = worst.site if worst.layer is None else f'{worst.site} {worst.layer}'
  text = (
      f'{model.name}: differs from transformers by at most {worst.relative:.1e}'
      f' of the largest value, at {where}; tolerance {fv.tolerance:g}'
  )
  if not all(row.relative <= fv.tolerance for row in rows):
    raise errors.NumericalError(text)
  print(text)


if __name__ == '__main__':
  sys.exit(main.launch('parity'))
