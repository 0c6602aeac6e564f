r"""Evaluates the SAEs of a release on held-out text and prints a table.

Splices each member of a release into the language model. With --out, writes one
JSON line per member, and the same rows as Parquet next to it. A row holds L0,
FVU, delta loss with its standard error, loss recovered relative to zero and to
mean ablation, gamma, dead and dense shares, and the FVU of a PCA of rank L0
fitted on training text. Model and text default to those of the training run.
Only the documents that training on that text would hold out are evaluated. With
--out, the same command resumes an interrupted evaluation from OUT.partial.

  jumprelu evaluate releases/layer2
  jumprelu evaluate --release=releases/layer2 --out=results.jsonl
  jumprelu evaluate --release=releases/layer2 --data=notes/ --out=notes.jsonl

--release may also be a repository of Gemma Scope, Gemma Scope 2, SAELens,
dictionary_learning or circuit-tracer, or a folder in one. Model, layer and site
are then read from the folder names or from the config next to the arrays; flags
must supply the missing ones.

  jumprelu evaluate --release=gemma-scope-2b-pt-res/layer_20/width_16k \
      --data=text/ --out=gemma_scope.jsonl

--measures computes additional metrics, which --help=measures describes with
their costs. Scalar results become columns of the rows. Other results are
written next to OUT.jsonl, as OUT.MEASURE.jsonl and OUT.MEASURE.parquet.
--measure.NAME.FIELD configures a measure:

  jumprelu evaluate --release=DIR --out=results.jsonl --measures=probing \
      --measure.probing.data=reviews.jsonl
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import sys
import tempfile
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import folder_kinds, remote, wording
from jumprelu.run import main

# A row of results.
Row = dict[str, Any]

POSITIONAL = 'release'
EXTRA = 'train'
MAIN_FLAGS = (
    'release',
    'out',
    'model',
    'data',
    'measures',
    'layer',
    'site',
    'lm_dtype',
    'eval.tokens',
)


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu import data, evals, sharding
  from jumprelu.evals import measures
  from jumprelu.evals.measures import config as config_lib
  from jumprelu.run import flags, origin_flags, preemption

  def string(name, text):
    absl_flags.DEFINE_string(name, None, text, flag_values=fv)

  string('release', 'Release directory, or a folder of published SAEs.')
  string('out', 'Output .jsonl file; without it, results are only printed.')
  string('model', 'Language model (default: that of the training run).')
  string(
      'data',
      'Text, as in --data of jumprelu train (default: that of the training run,'
      ' else stdlib).',
  )
  absl_flags.DEFINE_list(
      'measures',
      [],
      f'Additional metrics: any of {", ".join(measures.MEASURES)}.\n\n'
      + measures.describe(),
      flag_values=fv,
  )
  origin_flags.define(fv)
  flags.define_lm_dtype(fv)
  absl_flags.DEFINE_enum(
      'matmul_precision',
      None,
      ['default', 'high', 'highest', 'bfloat16'],
      'Precision of matrix products on accelerators (default: that of the'
      ' training run).',
      flag_values=fv,
  )
  flags.define(fv, evals.Config(), prefix='eval.')
  flags.define(fv, config_lib.Config(), prefix='measure.')
  flags.define(fv, data.Config(), prefix='corpus.')
  flags.define(fv, sharding.Config(), prefix='mesh.')
  flags.define(fv, preemption.Config(), prefix='process.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, evaluates the SAEs and writes the results."""
  from jumprelu import evals, sharding
  from jumprelu.evals import measures as measures_lib
  from jumprelu.evals import partial as partial_lib
  from jumprelu.evals.measures import config as settings_lib
  from jumprelu.release import evaluation, formats
  from jumprelu.run import flags, origin_flags, preemption

  if not fv.release:
    raise errors.UserError('--release is needed')
  out = None
  if fv.out:
    out = remote.local('out', fv.out)
    if out.suffix != '.jsonl':
      raise errors.UserError(f'--out={fv.out}: must end in .jsonl')
    folder_kinds.refuse_inside_release('out', out)
  release = remote.local('release', fv.release)
  measures = measures_lib.check(fv.measures)
  config = flags.build(fv, evals.Config(), prefix='eval.')
  settings = flags.build(fv, settings_lib.Config(), prefix='measure.')
  mesh = flags.build(fv, sharding.Config(), prefix='mesh.')
  # SAEs are loaded on the host, because no device may be used before all
  # processes have joined.
  loaded = formats.complete(
      formats.find(release),
      origin_flags.origin(fv),
  )
  training = next(iter(loaded.values())).training
  corpus = flags.build(fv, evaluation.corpus_config(training), prefix='corpus.')
  if out:
    _check_writable(out)
  processes = flags.build(fv, preemption.Config(), prefix='process.')
  # The watchdog expects training segments, which an evaluation does not have.
  processes = dataclasses.replace(processes, watchdog_seconds=0)
  partial = out and out.with_suffix('.partial')
  with preemption.start(processes, saves=False):
    results = evaluation.evaluate_released(
        loaded,
        measures=measures,
        settings=settings,
        config=config,
        corpus=corpus,
        mesh=mesh,
        model=formats.model_of(loaded),
        text=fv.data or training.get('data', 'stdlib'),
        lm_dtype=fv.lm_dtype,
        precision=fv.matmul_precision or training.get('matmul_precision'),
        partial=partial,
    )
    _report(results.rows, results.tables, out=out)
    if partial:
      partial_lib.remove(partial)


def _report(
    rows: Sequence[Row],
    tables: Mapping[str, Sequence[Row]],
    *,
    out: pathlib.Path | None,
) -> None:
  """Prints a table and, with `out`, writes all rows; in process 0 only."""
  import jax

  from jumprelu.evals import evaluate

  if jax.process_index() > 0:
    return
  if not out:
    evaluate.print_table(rows)
    omitted = f' and the tables of {", ".join(tables)}' if tables else ''
    print(f'Nothing was written; --out=FILE.jsonl keeps all columns{omitted}.')
    return
  # Precedes printing, which may fail.
  evaluate.write_results(rows, out)
  evaluate.print_table(rows)
  print(
      f'{out}: {wording.count(len(rows), "member")}; also in {out.stem}.parquet'
  )
  for name, table in tables.items():
    path = out.with_name(f'{out.stem}.{name}.jsonl')
    evaluate.write_results(table, path)
    count = wording.count(len(table), 'row')
    print(f'{path}: {count}; also in {path.stem}.parquet')


def _check_writable(out: pathlib.Path) -> None:
  """Checks, before the long evaluation, that `out` can be written.

  Each process writes a temporary file of its own, because several processes may
  check the folder at once.

  Raises:
    UserError: `out` is a folder, or its folder cannot be written.
  """
  if out.is_dir():
    raise errors.UserError(f'--out={out}: a directory; name a file')
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):
      pass
  except OSError as error:
    if errors.is_full_disk(error):
      raise
    raise errors.UserError(
        f'--out={out}: its folder cannot be written ({error.strerror}); choose'
        ' another'
    ) from error


if __name__ == '__main__':
  sys.exit(main.launch('evaluate'))
