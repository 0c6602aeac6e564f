r"""Writes a language model's activations on tokens or text to an npz file.

Reads token ids (an .npy file of integers [sequences, positions], where 0 is
padding) or a text file, and runs the language model up to the layer. The file
holds one float32 array [sequences, positions, width] for each of --sites:

  resid_post   the residual stream after the block
  mlp_out      the MLP's output after its norm, before the residual sum
  attn_heads   the attention heads' outputs, concatenated
  mlp_in       the MLP's input after its norm, the norm's gain included
  logits       with --logits: the model's logits

Each row is one document with positions 0, 1, ... Attention is causal and masks
padding; the values at padding are meaningless. Text is split into rows that
start with BOS, and the file then also holds their `token_ids`.

  jumprelu harvest --layer=2 --token_ids=ids.npy --out=activations.npz
  jumprelu harvest --layer=2 --text=essay.txt --sites=resid_post --out=a.npz

With --store, the command instead fills a folder, the store, with the shuffled
activations that `jumprelu train` with the same flags would stream. `jumprelu
train --store=DIR` then reads these activations and does not load the language
model; its results are bit-identical to those of streaming. The command prints
the size of the missing part of the store, and how many runs must share the
store before it is cheaper than streaming. Run the same command again to resume
at the first missing block. With more --tokens, a store is extended.

  jumprelu harvest --store=acts --layer=2 --sites=resid_post --tokens=2_000_000
  jumprelu train --store=acts --layer=2 --sites=resid_post \
      --tokens=2_000_000 --out=runs/a
"""

import pathlib
import sys

from absl import flags

from jumprelu import errors
from jumprelu.files import folder_kinds
from jumprelu.run import flags as flags_lib
from jumprelu.run import harvest_store, main

EXTRA = 'train'
MAIN_FLAGS = (
    'model',
    'layer',
    'token_ids',
    'text',
    'out',
    'sites',
    'store',
    'tokens',
    'data',
    'recipe',
)

_SITES = ('resid_post', 'mlp_out', 'attn_heads', 'mlp_in')


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""

  def string(name, default, text):
    flags.DEFINE_string(name, default, text, flag_values=fv)

  string(
      'model',
      'gemma2_nano',
      'Language model: a known name, folder or GGUF file.',
  )
  flags_lib.define_integer(
      fv, 'layer', None, 'Layer, counted from 0. Required.'
  )
  string('token_ids', None, 'An .npy file of token ids.')
  string('text', None, 'A UTF-8 text file, read instead of token ids.')
  string('out', None, 'Output .npz file.')
  flags.DEFINE_list(
      'sites', list(_SITES), 'Sites of the activations.', flag_values=fv
  )
  flags.DEFINE_bool('logits', False, 'Write the logits too.', flag_values=fv)
  flags.DEFINE_enum(
      'dtype',
      'float32',
      ['float32', 'bfloat16'],
      'Precision of the language model; the file holds float32.',
      flag_values=fv,
  )
  flags_lib.define_integer(
      fv, 'batch', 8, 'Sequences per forward pass.', lower_bound=1
  )
  flags_lib.define_integer(
      fv,
      'sequence_length',
      None,
      "Positions per row of --text (default: 1024, or the model's context if"
      ' that is shorter).',
      lower_bound=2,
  )
  harvest_store.define_flags(fv)


def run(fv: flags.FlagValues) -> int:
  """Fills a store or writes a file; returns the exit code."""
  if fv.store:
    return harvest_store.run(fv)
  _write_file(fv)
  return 0


def _write_file(fv: flags.FlagValues):
  """Checks the flags, reads the tokens, runs the model and writes the file."""
  problems = [f'--{n} needs --store' for n in harvest_store.present(fv)]
  problems += [
      f'--{name} is needed' for name in ('layer', 'out') if not _has(fv, name)
  ]
  if (fv.token_ids is None) == (fv.text is None):
    problems.append('exactly one of --token_ids and --text is needed')
  problems += [
      f'--sites={site}: not one of {", ".join(_SITES)}'
      for site in fv.sites
      if site not in _SITES
  ]
  if fv.out and pathlib.Path(fv.out).suffix != '.npz':
    problems.append(f'--out={fv.out}: must end in .npz')
  if problems:
    raise errors.UserError('; '.join(problems))
  folder_kinds.refuse_inside_release('out', fv.out)

  from jumprelu import lm
  from jumprelu.activations import harvest

  config = lm.get_config(fv.model)
  if not 0 <= fv.layer < config.layers:
    raise errors.UserError(
        f'--layer={fv.layer}: {fv.model} has layers 0 to {config.layers - 1}'
    )
  ids, extra = None, None
  if fv.token_ids:
    ids = harvest.read_token_ids(fv.token_ids, config=config)
  # Logits need all layers; activations need only those up to --layer.
  model = lm.load(
      fv.model,
      num_layers=None if fv.logits else fv.layer + 1,
      dtype=fv.dtype,
  )
  if ids is None:
    ids = _encode(
        fv.text, model, fv.sequence_length or min(config.context, 1024)
    )
    extra = {'token_ids': ids}
  harvest.harvest(
      model,
      ids,
      fv.out,
      taps={site: lm.Tap(fv.layer, lm.Site(site)) for site in fv.sites},
      logits=fv.logits,
      batch=min(fv.batch, len(ids)),
      extra=extra,
  )
  names = [*fv.sites, *(['logits'] if fv.logits else []), *(extra or {})]
  print(
      f'{fv.out}: {", ".join(names)} for {len(ids)} sequences of'
      f' {ids.shape[1]} positions'
  )


def _has(fv: flags.FlagValues, name: str) -> bool:
  return fv[name].value is not None


def _encode(text: str, model, sequence_length: int):
  """Returns the token ids of a text file, packed into rows.

  The whole file is encoded as one document.
  """
  import numpy as np

  from jumprelu import data
  from jumprelu.data import packing

  path = pathlib.Path(text)
  if not path.is_file():
    raise errors.MissingInputError(f'--text={text}: no such file')
  try:
    content = path.read_text(encoding='utf-8')
  except UnicodeDecodeError as e:
    raise errors.UserError(f'--text={text}: not UTF-8 ({e.reason})') from e
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  tokens = tokenizer.encode(content)
  if not tokens:
    raise errors.UserError(f'--text={text}: empty')
  return np.stack(list(packing.pack([tokens], sequence_length)))


if __name__ == '__main__':
  sys.exit(main.launch('harvest'))
