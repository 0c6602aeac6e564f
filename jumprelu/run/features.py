"""Collects what every latent of a release fires on, as Parquet files.

Reads held-out text once for all members of a release, and writes a folder with
one Parquet file per member, the vocabulary, and manifest.json. A row describes
one latent: its frequency, mean and largest activation, histogram, examples with
the surrounding text, top tokens, tokens that it promotes and suppresses,
nearest decoder directions and co-active latents. docs/features.md lists the
columns. Model and text default to those of the training run.

  jumprelu features --release=releases/layer2 --out=features/layer2

--members limits the collection to members whose path contains one of the
texts. --tokens is the number of held-out positions to read. A collection that
was stopped is resumed by the same command.
"""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import folder_kinds, remote, wording
from jumprelu.run import main

POSITIONAL = 'release'
EXTRA = 'train'
MAIN_FLAGS = ('release', 'out', 'tokens', 'members', 'model', 'data')


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  string = functools.partial(absl_flags.DEFINE_string, flag_values=fv)
  string('release', None, 'Release directory, or a folder of published SAEs.')
  string('out', None, 'Output folder, which must not exist.')
  define_collection_flags(fv)


def define_collection_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the flags of a collection, without --release and --out."""
  from jumprelu import data, features, sharding
  from jumprelu.run import flags, origin_flags, preemption

  def string(name, text):
    absl_flags.DEFINE_string(name, None, text, flag_values=fv)

  string('model', 'Language model (default: that of the training run).')
  string(
      'data',
      'Text, as in --data of jumprelu train (default: that of the training run,'
      ' else stdlib).',
  )
  flags.define_integer(
      fv,
      'tokens',
      None,
      'Held-out positions to read; short for --features.tokens.',
      lower_bound=1,
  )
  flags.define_members(fv)
  origin_flags.define(fv)
  flags.define_lm_dtype(fv)
  flags.define(fv, features.Config(), prefix='features.')
  flags.define(fv, data.Config(), prefix='corpus.')
  flags.define(fv, sharding.Config(), prefix='mesh.')
  flags.define(fv, preemption.Config(), prefix='process.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags and collects the features."""
  problems = [
      f'--{name} is needed' for name in ('release', 'out') if not fv[name].value
  ]
  if problems:
    raise errors.UserError('; '.join(problems))
  out = remote.local('out', fv.out)
  remote.local('release', fv.release)
  folder_kinds.refuse_inside_release('out', out)
  collect_with_flags(fv, load(fv), out)


def load(fv: absl_flags.FlagValues) -> dict[str, Any]:
  """Returns the SAEs of --release that --members selects, on the host.

  No device may be used before all processes have joined.
  """
  from jumprelu.release import formats
  from jumprelu.run import origin_flags

  return formats.complete(
      formats.select(formats.find(fv.release), fv.members),
      origin_flags.origin(fv),
  )


def collect_with_flags(
    fv: absl_flags.FlagValues,
    loaded: Mapping[str, Any],
    out: pathlib.Path,
) -> None:
  """Collects the features of SAEs, and prints a line about them."""
  from jumprelu import features, processes, sharding
  from jumprelu.features import collect
  from jumprelu.release import evaluation
  from jumprelu.run import flags, preemption

  config = flags.build(fv, features.Config(), prefix='features.')
  if fv.tokens is not None:
    config = dataclasses.replace(config, tokens=fv.tokens)
  mesh = flags.build(fv, sharding.Config(), prefix='mesh.')
  training = next(iter(loaded.values())).training
  corpus = flags.build(fv, evaluation.corpus_config(training), prefix='corpus.')
  options = flags.build(fv, preemption.Config(), prefix='process.')
  # The watchdog expects training segments, which a collection does not have.
  options = dataclasses.replace(options, watchdog_seconds=0)
  # Complete segments are on the disk.
  with preemption.start(options, saves=False):
    manifest = collect.collect(
        loaded,
        out,
        source=collect.source_of(
            loaded, text=fv.data, corpus=corpus, lm_dtype=fv.lm_dtype
        ),
        config=config,
        mesh=mesh,
    )
    if processes.is_main():
      members = manifest['members']
      latents = sum(member['width'] for member in members)
      print(
          f'{out}: {wording.count(len(members), "member")}, {latents:,} latents,'
          f' {manifest["tokens"]:,} tokens'
      )


if __name__ == '__main__':
  sys.exit(main.launch('features'))
