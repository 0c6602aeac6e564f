r"""Converts SAEs to the formats of other tools, by which they are shared.

Reads the SAEs of a release, or of any folder of published SAEs, and writes them
in the format that --to names:

  saelens              a folder per SAE, for SAE.load_from_disk
  dictionary_learning  a folder per SAE, for utils.load_dictionary
  circuit_tracer       a set of transcoders, one per layer
  gemma_scope          folders named as Gemma Scope's repositories
  gemma_scope_2        folders named as Gemma Scope 2's repositories
  saebench             SAEs, and with --results core results in its schema
  neuronpedia          from --features: the layout of its bulk imports
  delphi               from --features: a cache of latents
  huggingface          a copy of the release with a model card for the Hub; the
                       command to upload it is printed

With --features, circuit_tracer also writes the features that its viewer shows.

An SAE that a format cannot hold is refused by name, and nothing is written.
Warnings name the limits of a tool. Nothing is uploaded, and no token is read.

  jumprelu export --release=releases/layer2 --to=saelens --out=exports/saelens
  jumprelu export --release=releases/layer2 --to=huggingface \
      --repository=me/sae-layer2 --out=exports/hub
"""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags

from jumprelu import errors
from jumprelu.files import remote, wording
from jumprelu.run import main

POSITIONAL = 'release'
# Formats that are written from features.
_OF_FEATURES = ('neuronpedia', 'delphi')
# The formats that each optional flag concerns.
_CONCERNS = {
    'features': (*_OF_FEATURES, 'circuit_tracer'),
    'results': ('saebench',),
    'creator': ('neuronpedia',),
}


def define_flags(fv: flags.FlagValues):
  """Declares the command's flags."""
  from jumprelu.release.exports import huggingface
  from jumprelu.run import flags as flags_lib
  from jumprelu.run import origin_flags

  flags.DEFINE_string(
      'release',
      None,
      'Release directory, or a folder of published SAEs.',
      flag_values=fv,
  )
  flags.DEFINE_string('to', None, 'Format to write.', flag_values=fv)
  flags.DEFINE_string(
      'out', None, 'Folder to write; new or empty.', flag_values=fv
  )
  flags_lib.define_members(fv)
  flags.DEFINE_string(
      'model',
      None,
      'Language model, instead of the one that the files name.',
      flag_values=fv,
  )
  flags.DEFINE_string(
      'features',
      None,
      'Features of the release (jumprelu features), for formats that show them.',
      flag_values=fv,
  )
  flags.DEFINE_string(
      'results',
      None,
      'Results (.jsonl) with the columns of the measure saebench, for'
      ' --to=saebench.',
      flag_values=fv,
  )
  flags.DEFINE_string(
      'creator',
      '',
      "The creator's name in the tables of --to=neuronpedia.",
      flag_values=fv,
  )
  flags.DEFINE_string(
      'repository',
      huggingface.DEFAULT_REPOSITORY,
      "The repository's name, for the card of --to=huggingface.",
      flag_values=fv,
  )
  origin_flags.define(fv)


def run(fv: flags.FlagValues):
  """Writes the export, and prints its warnings."""
  needed = ('release', 'to', 'out')
  missing = [f'--{name} is needed' for name in needed if not fv[name].value]
  if missing:
    raise errors.UserError('; '.join(missing))
  from jumprelu.release import exports
  from jumprelu.release.exports import huggingface, source
  from jumprelu.run import flags as flags_lib
  from jumprelu.run import origin_flags

  known = (*exports.FORMATS, *_OF_FEATURES, huggingface.NAME)
  if fv.to not in known:
    raise errors.UserError(
        f'--to={fv.to}: unknown format{flags_lib.suggest(fv.to, known)}; the'
        f' formats are {", ".join(known)}'
    )
  for name, formats in _CONCERNS.items():
    if fv[name].value and fv.to not in formats:
      raise errors.UserError(
          f'--{name}: only concerns --to={"|".join(formats)}; omit the flag'
      )
  if fv.to in _OF_FEATURES and not fv.features:
    raise errors.UserError(
        f'--to={fv.to}: needs --features=DIR, which jumprelu features writes'
    )
  out = remote.local('out', fv.out)
  remote.local('release', fv.release)
  exports.check_out(out)
  if fv.to == huggingface.NAME:
    _to_hub(fv)
    return
  sources = source.read(
      fv.release, members=fv.members, overrides=origin_flags.origin(fv)
  )
  with exports.new_folder(out) as new:
    warnings = _write(fv, sources, new)
  _warn(warnings)
  print(f'{fv.out}: {wording.count(len(sources), "SAE")} in the format {fv.to}')


def _write(
    fv: flags.FlagValues, sources: Sequence[Any], new: pathlib.Path
) -> list[str]:
  """Writes SAEs or their features to an empty folder; returns warnings."""
  from jumprelu.release import exports

  if fv.to == 'saebench':
    return exports.write(sources, new, to=fv.to, results=fv.results)
  if fv.to == 'delphi':
    from jumprelu.features.exports import delphi

    return delphi.write(sources, new, folder=fv.features)
  if fv.to == 'neuronpedia':
    from jumprelu.features.exports import neuronpedia

    return neuronpedia.write(
        sources, new, folder=fv.features, creator=fv.creator
    )
  warnings = exports.write(sources, new, to=fv.to)
  if fv.features:
    from jumprelu.features.exports import graph_viewer

    graph_viewer.write(sources, new, folder=fv.features)
  return warnings


def _to_hub(fv: flags.FlagValues) -> None:
  """Writes the folder of a repository and prints how to upload it."""
  from jumprelu.release import exports
  from jumprelu.release.exports import huggingface

  if fv.members:
    raise errors.UserError(
        f'--members: --to={fv.to} copies the whole release; omit the flag'
    )
  with exports.new_folder(fv.out) as new:
    _warn(huggingface.write(fv.release, new, repository=fv.repository))
  command = huggingface.upload_command(fv.out, repository=fv.repository)
  print(f'{fv.out}: a release with its card; upload it with: {command}')


def _warn(warnings: Sequence[str]) -> None:
  for warning in dict.fromkeys(warnings):
    print(f'Warning: {warning}.')


if __name__ == '__main__':
  sys.exit(main.launch('export'))
