"""Flags of commands that run some SAEs of a release on prompts."""

import functools
import pathlib
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import folder_kinds, remote


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the flags of the SAEs, their language model and the prompts."""
  from jumprelu.run import flags

  text = functools.partial(absl_flags.DEFINE_string, flag_values=fv)
  text('release', None, 'Release directory, or a folder of published SAEs.')
  flags.define_members(fv)
  absl_flags.DEFINE_float(
      'l0', None, 'Of these, the SAE with the nearest L0.', flag_values=fv
  )
  text('model', None, 'Language model (default: that of the training run).')
  flags.define_lm_dtype(fv)
  text('prompt', None, 'The prompt.')
  text('prompts', None, 'A text file with a prompt on each line, instead.')


def read(fv: absl_flags.FlagValues) -> list[str]:
  """Returns the prompts of --prompt or --prompts.

  Raises:
    UserError: There is none, or both flags are set.
  """
  if bool(fv.prompt) == bool(fv.prompts):
    raise errors.UserError(
        'pass one of --prompt=TEXT and --prompts=FILE, and not both'
    )
  if fv.prompt:
    return [fv.prompt]
  path = remote.local('prompts', fv.prompts)
  try:
    lines = path.read_text('utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
        f'--prompts={path}: {error}; pass a text file in UTF-8'
    ) from error
  lines = [line for line in lines if line]
  if not lines:
    raise errors.UserError(f'--prompts={path}: empty; write a prompt on a line')
  return lines


def out(fv: absl_flags.FlagValues, *endings: str) -> pathlib.Path | None:
  """Returns the file of --out, or None if the flag is not set.

  Raises:
    UserError: Its name has none of the endings, or it is inside of a release.
  """
  if not fv.out:
    return None
  path = remote.local('out', fv.out)
  if path.suffix not in endings:
    raise errors.UserError(
        f'--out={fv.out}: must end in {" or ".join(endings)}'
    )
  folder_kinds.refuse_inside_release('out', path)
  return path


def load(
    fv: absl_flags.FlagValues, *, single: bool = False
) -> tuple[list[Any], Any]:
  """Returns the selected SAEs, and their language model.

  Raises:
    UserError: No SAE is selected, or several where one is needed.
  """
  import jax

  import jumprelu
  from jumprelu.training import config as config_lib

  remote.local('release', fv.release)
  suite = jumprelu.load(fv.release, model=fv.model)
  paths = [
      path
      for path in suite
      if not fv.members or any(text in path for text in fv.members)
  ]
  if fv.l0 is not None:
    known = [path for path in paths if suite[path].l0 is not None]
    paths = sorted(known, key=lambda path: abs(suite[path].l0 - fv.l0))[:1]
  if not paths or (single and len(paths) > 1):
    count = len(paths) or 'no'
    raise errors.UserError(
        f'--members={",".join(fv.members)}: selects {count} SAEs; choose from:'
        f' {", ".join(paths or suite)}'
    )
  saes = [suite[path] for path in paths]
  dtype = config_lib.dtype_on(fv.lm_dtype, jax.default_backend())
  return saes, saes[0].load_lm(dtype=jax.numpy.dtype(dtype).name)
