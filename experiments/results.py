"""Trains suites and measures them, each once; what is there is read again.

A suite's folder holds its run (which goes on where it was stopped) and its
results, with a digest of all that they follow from: another config, or other
measures, and they are made again.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from experiments import made, suites

_META, _ROWS, _FREQUENCIES = 'meta.json', 'rows.jsonl', 'frequencies.npz'

Row = dict[str, Any]


class Preempted(Exception):
  """A signal stopped the training; what is there is saved."""


class Result(NamedTuple):
  """What was measured of a suite's members, in their order."""

  rows: list[Row]
  # By measure: its own table.
  tables: Mapping[str, list[Row]]
  # Of each member, [latents].
  frequencies: list[Any]


def obtain(
    wanted: suites.Suite | suites.Reading,
    folder: pathlib.Path,
    *,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> Result:
  """Reads the results of a suite, or trains and measures it first.

  Args:
    wanted: The suite, or another reading of one.
    folder: Where suites are kept, a folder each.
    should_stop: Whether to save and leave, as for `train.train`.

  Raises:
    Preempted: `should_stop` said so.
  """
  suite = wanted.suite if isinstance(wanted, suites.Reading) else wanted
  run = folder / suite.name / 'run'
  results = folder / suite.name / 'results'
  if isinstance(wanted, suites.Reading):
    results = folder / suite.name / wanted.name
  key = digest(wanted)
  if not _is_stored(results, key):
    stop = {'should_stop': should_stop}
    train_suite(suite, run, work=folder, **stop)
    if isinstance(wanted, suites.Reading) and wanted.scales_of is not None:
      other = folder / wanted.scales_of.name / 'run'
      train_suite(wanted.scales_of, other, work=folder, **stop)
    _store(_measure(wanted, folder), results, key)
  return _read(results)


def by_path(result: Result) -> dict[str, Row]:
  """Returns the rows by what tables call their members."""
  return {row['path'] or str(i): row for i, row in enumerate(result.rows)}


def is_stored(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> bool:
  """Says whether `obtain` would only read."""
  reading = isinstance(wanted, suites.Reading)
  suite = wanted.suite if reading else wanted
  name = wanted.name if reading else 'results'
  return _is_stored(folder / suite.name / name, digest(wanted))


def digest(wanted: suites.Suite | suites.Reading) -> str:
  """Digests what results follow from: config, measures, what else is read.

  A field counts where it is not at its default, so that a field which the
  package gets later does not undo what was made before.
  """
  from jumprelu import config as config_lib
  from jumprelu import dotted

  fields = dataclasses.asdict(wanted)
  fields.pop('suite', None)
  suite = wanted.suite if isinstance(wanted, suites.Reading) else wanted
  default = dotted.leaves(config_lib.TrainConfig())
  config = dotted.leaves(made.resolve(suite.config))
  fields['config'] = {
      path: leaf.value
      for path, leaf in config.items()
      if leaf.value != default[path].value
  }
  # Of what is made the names: the folder where it lies changes no result.
  names = {
      path: dataclasses.asdict(value)
      for path, value in suite.config.items()
      if isinstance(value, made.Made)
  }
  if names:
    fields['made'] = names
  text = json.dumps(fields, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def train_suite(
    suite: suites.Suite,
    run: pathlib.Path,
    *,
    work: pathlib.Path,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> None:
  """Trains a suite, or what is left of it, in the run directory `run`.

  Texts and models that are made for it are kept in the folder `work`.
  """
  from jumprelu import train

  config = made.resolve(suite.config, work)
  if train.train(config, run, should_stop=should_stop) == train.PREEMPTED:
    raise Preempted(suite.name)


def _measure(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> Result:
  from jumprelu import evaluate, publish

  reading = isinstance(wanted, suites.Reading)
  suite = wanted.suite if reading else wanted
  run = publish.open_run(folder / suite.name / 'run')
  if reading:
    run = _read_otherwise(run, wanted, folder)
  found = evaluate.evaluate_members(
      run.model,
      publish.eval_members(run),
      held_out=run.prepared.held_out,
      train=run.prepared.train,
      config=run.config.eval,
      mesh=run.mesh,
      measures=wanted.measures,
  )
  return Result(found.rows, found.tables, found.firing_frequency)


def _read_otherwise(
    run: Any, wanted: suites.Reading, folder: pathlib.Path
) -> Any:
  """Returns a run as if it had been trained on what is to be read."""
  import jax

  from jumprelu import config as config_lib
  from jumprelu import data, lm, trained

  config = made.resolve({**wanted.suite.config, **wanted.changes}, folder)
  model = run.model
  if config.model != run.config.model:
    model = lm.load(
        config.model,
        dtype=config_lib.dtype_on(config, jax.default_backend()),
        mesh=run.mesh,
    )
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  prepared = data.prepare(config.data, tokenizer, config.corpus)
  kept = [
      i
      for i, member in enumerate(run.members)
      if not wanted.sites or member.member.site in wanted.sites
  ]
  run = run._replace(
      config=config,
      model=model,
      prepared=prepared,
      members=[run.members[i] for i in kept],
      folded=[run.folded[i] for i in kept],
  )
  if wanted.scales_of is None:
    return run
  others = trained.load_suite(folder / wanted.scales_of.name / 'run')
  return run._replace(folded=_fold(run.members, others))


def _fold(members: Any, others: Any) -> list[Any]:
  """Folds members with the scales of another run, site by site."""
  import jax.numpy as jnp

  scales = {
      other.member.site: (other.input_scale, other.target_scale)
      for other in others
  }
  return [
      m.sae.fold(
          {name: jnp.asarray(value) for name, value in m.params.items()},
          input_scale=scales[m.member.site][0],
          target_scale=scales[m.member.site][1],
      )
      for m in members
  ]


def _is_stored(results: pathlib.Path, key: str) -> bool:
  meta = results / _META
  return meta.is_file() and json.loads(meta.read_text())['digest'] == key


def _store(found: Result, results: pathlib.Path, key: str) -> None:
  import numpy as np

  from jumprelu import evaluate, npz

  results.mkdir(parents=True, exist_ok=True)
  # What says that all is there comes last.
  (results / _META).unlink(missing_ok=True)
  evaluate.write_results(found.rows, results / _ROWS)
  for name, table in found.tables.items():
    evaluate.write_results(table, results / f'{name}.jsonl')
  npz.write_npz(
      results / _FREQUENCIES,
      {
          str(i): np.asarray(x, np.float32)
          for i, x in enumerate(found.frequencies)
      },
  )
  meta = {'digest': key, 'tables': list(found.tables)}
  (results / _META).write_text(json.dumps(meta))


def _read(results: pathlib.Path) -> Result:
  from jumprelu import npz

  meta = json.loads((results / _META).read_text())
  rows = _read_rows(results / _ROWS)
  frequencies = npz.read_npz(
      results / _FREQUENCIES,
      {str(i): (row['width'],) for i, row in enumerate(rows)},
  )
  return Result(
      rows,
      {name: _read_rows(results / f'{name}.jsonl') for name in meta['tables']},
      [frequencies[str(i)] for i in range(len(rows))],
  )


def _read_rows(path: pathlib.Path) -> list[Row]:
  return [json.loads(line) for line in path.read_text('utf-8').splitlines()]
