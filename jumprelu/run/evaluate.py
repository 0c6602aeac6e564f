"""Evaluates the SAEs of a release on held-out text and prints a table.

Reads every member of a release, splices it into the language model and writes
one JSON line a member to --out, and the same as Parquet beside it: L0, FVU,
delta loss with its standard error, loss recovered by zero and mean ablation,
gamma, dead and dense shares, and PCA of rank L0 fitted on training text. Model
and text are those that the suite was trained with, unless flags say otherwise;
only documents that training on that text holds out are evaluated.

  jumprelu evaluate --release=releases/layer2 --out=results.jsonl
  jumprelu evaluate --release=releases/layer2 --data=notes/ --out=notes.jsonl

Gemma Scope's and Gemma Scope 2's folders and SAELens' are read as well: a
repository, or any folder in it. Model, layer and site come from the names of
the folders or from cfg.json; what those do not say, flags must.

  jumprelu evaluate --release=gemma-scope-2b-pt-res/layer_20/width_16k \
      --data=text/ --out=gemma_scope.jsonl

--measures takes more than the above, at the price of a pass over text each
(histogram, geometry, splitting and stability read none): their columns join the
rows, and what is no single number a member is written beside --out, as
OUT.MEASURE.jsonl and .parquet. --measure.NAME.FIELD tells a measure more:

  jumprelu evaluate --release=DIR --out=results.jsonl --measures=probing \
      --measure.probing.data=reviews.jsonl
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import pathlib
import signal
import sys
import tempfile
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import folder_kinds, remote
from jumprelu.run import main

POSITIONAL = 'release'
EXTRA = 'train'


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu import data, evals, sharding
  from jumprelu.evals import measures
  from jumprelu.evals.measures import config as config_lib
  from jumprelu.run import flags, preemption

  def string(name, text):
    absl_flags.DEFINE_string(name, None, text, flag_values=fv)

  string('release', 'The release, or a folder with published SAEs.')
  string('out', 'The .jsonl file to write.')
  string('model', 'The language model (default: the one it was trained on).')
  string('data', 'The text, as for train (default: what it was trained on).')
  absl_flags.DEFINE_list(
      'measures',
      [],
      f'What to measure besides: any of {", ".join(measures.MEASURES)}.',
      flag_values=fv,
  )
  absl_flags.DEFINE_integer(
      'layer',
      None,
      'The layer of published SAEs that do not say it.',
      flag_values=fv,
  )
  string('site', 'The site of published SAEs that do not say it.')
  absl_flags.DEFINE_boolean(
      'input_gain',
      None,
      "Whether a published transcoder's input has the norm's gain, where"
      ' nothing says it.',
      flag_values=fv,
  )
  absl_flags.DEFINE_enum(
      'lm_dtype',
      'auto',
      ['auto', 'float32', 'bfloat16'],
      'Precision of the language model; auto: float32 on CPU, bfloat16 else.',
      flag_values=fv,
  )
  absl_flags.DEFINE_enum(
      'matmul_precision',
      None,
      ['default', 'high', 'highest', 'bfloat16'],
      'Precision of matrix products on accelerators (default: as in training).',
      flag_values=fv,
  )
  flags.define(fv, evals.Config(), prefix='eval.')
  flags.define(fv, config_lib.Config(), prefix='measure.')
  flags.define(fv, data.Config(), prefix='corpus.')
  flags.define(fv, sharding.Config(), prefix='mesh.')
  flags.define(fv, preemption.Config(), prefix='process.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, then loads, evaluates and writes."""
  from jumprelu import evals, sharding
  from jumprelu.evals import measures as measures_lib
  from jumprelu.evals.measures import config as settings_lib
  from jumprelu.release import formats
  from jumprelu.run import flags, preemption

  problems = [
      f'--{name} is needed' for name in ('release', 'out') if not fv[name].value
  ]
  out = remote.local('out', fv.out or 'none.jsonl')
  if out.suffix != '.jsonl':
    problems.append(f'--out={fv.out}: must end in .jsonl')
  if problems:
    raise errors.UserError('; '.join(problems))
  remote.local('release', fv.release)
  folder_kinds.refuse_inside_release('out', out)
  measures = measures_lib.check(fv.measures)
  config = flags.build(fv, evals.Config(), prefix='eval.')
  settings = flags.build(fv, settings_lib.Config(), prefix='measure.')
  mesh = flags.build(fv, sharding.Config(), prefix='mesh.')
  # On the host: no device may be touched before the processes have met.
  loaded = formats.complete(
      formats.find(fv.release),
      formats.Origin(fv.model, fv.layer, fv.site, fv.input_gain),
  )
  training = next(iter(loaded.values())).training
  corpus = flags.build(fv, _corpus_of(training), prefix='corpus.')
  _check_writable(out)
  processes = flags.build(fv, preemption.Config(), prefix='process.')
  # No segments that a watchdog could wait for.
  processes = dataclasses.replace(processes, watchdog_seconds=0)
  with preemption.start(processes):
    # There is nothing to save: a signal ends the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    found = _evaluate(
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
    )
    _report(found, out)


def _report(found: Any, out: pathlib.Path) -> None:
  """Writes the rows and tables, and says so, in one process."""
  import jax

  from jumprelu.evals import evaluate

  if jax.process_index() > 0:
    return
  evaluate.write_results(found.rows, out)
  evaluate.print_table(found.rows)
  print(f'{out}: {len(found.rows)} members; the same in {out.stem}.parquet')
  for name, table in found.tables.items():
    path = out.with_name(f'{out.stem}.{name}.jsonl')
    evaluate.write_results(table, path)
    print(f'{path}: {len(table)} rows; the same in {path.stem}.parquet')


def _corpus_of(training: Mapping[str, Any]) -> Any:
  """Returns how the training text was read, without its machine's paths."""
  from jumprelu import data
  from jumprelu.files import dotted

  fields = dict(training.get('corpus', {}))
  for local in ('cache_dir', 'data_dir'):
    fields.pop(local, None)
  try:
    return dotted.replace(data.Config(), fields)
  except errors.UserError as error:
    raise errors.DataError(
        f'--release: config.json: training.corpus: {error}; install the'
        ' jumprelu that wrote it, or a newer one'
    ) from None


def _check_writable(out: pathlib.Path) -> None:
  """Fails before the minutes of evaluation, not after.

  Each process tries a file of its own, because several may try at once.
  """
  if out.is_dir():
    raise errors.UserError(f'--out={out}: a directory; name a file')
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=out.parent):
    pass


def _evaluate(
    loaded: dict[str, Any],
    *,
    model: str,
    text: str,
    lm_dtype: str,
    precision: str | None,
    config: Any,
    corpus: Any,
    mesh: Any,
    measures: tuple[str, ...],
    settings: Any,
) -> Any:
  """Returns the evaluation of all members of a release."""
  import jax

  from jumprelu import data, lm, sharding
  from jumprelu.evals import evaluate
  from jumprelu.training import config as config_lib

  wanted = config_lib.resolve({'lm_dtype': lm_dtype})
  devices = sharding.make_mesh(mesh)
  language_model = lm.load(
      model,
      dtype=config_lib.dtype_on(wanted, jax.default_backend()),
      mesh=devices,
  )
  tokenizer = data.Tokenizer(
      language_model.tokenizer_path, rows=language_model.config.vocab
  )
  prepared = data.prepare(text, tokenizer, corpus)
  context = contextlib.nullcontext()
  if precision not in (None, 'default'):
    context = jax.default_matmul_precision(precision)
  with context:
    return evaluate.evaluate_members(
        language_model,
        [_make_member(path, released) for path, released in loaded.items()],
        held_out=prepared.held_out,
        train=prepared.train,
        config=config,
        mesh=devices,
        measures=measures,
        settings=settings,
    )


def _make_member(path, released):
  """Returns a member as an evaluation expects it."""
  from jumprelu.evals import evaluate

  return evaluate.EvalMember(
      sae=released.sae,
      params=released.params,
      reads=released.origin.reads(),
      meta=dict(released.meta) | {'path': path},
  )


if __name__ == '__main__':
  sys.exit(main.launch('evaluate'))
