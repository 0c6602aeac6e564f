"""Trains and measures each suite once, and stores the results.

The folder of a suite holds its run, which resumes after an interruption, and
its results. The results are stored with a key of their inputs: the config, the
measures, the version of the metrics, the platform, the precision and the
weights of the language models. If any of these changes, the suite is measured
again. The run needs no such key, because training refuses the run directory of
another config.
"""

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import jax

from experiments.nano import made
from experiments.suites import suites, training_text
from jumprelu import data, evals, lm
from jumprelu.evals import evaluate, stored
from jumprelu.files import digests, dotted
from jumprelu.release import publish
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, train

# Fields of local paths, which do not change results.
_LOCAL = ('corpus.cache_dir', 'corpus.data_dir', 'store')


class Preempted(Exception):
  """Raised after a signal stopped the training and a checkpoint was saved."""


def obtain(
    wanted: suites.Suite | suites.Reading,
    folder: pathlib.Path,
    *,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> evaluate.Evaluation:
  """Returns the results of a suite or reading, made first if not yet stored.

  Args:
    wanted: The suite or reading.
    folder: The folder of all suites, with one subfolder per suite.
    should_stop: Whether to save and exit, as for `train.train`.

  Raises:
    Preempted: `should_stop` returned true during training.
  """
  result = stored.read(_results(wanted, folder), _key(wanted, folder))
  if result is None:
    needed = [_suite(wanted)]
    if isinstance(wanted, suites.Reading) and wanted.scales_of is not None:
      needed.append(wanted.scales_of)
    for suite in needed:
      run = folder / suite.name / 'run'
      train_suite(suite, run, work=folder, should_stop=should_stop)
    result = _measure(wanted, folder)
    # Computed again, because training may have made the language model.
    key = _key(wanted, folder)
    stored.write(result, _results(wanted, folder), key)
  return result


def by_path(result: evaluate.Evaluation) -> dict[str, Any]:
  """Returns the rows by `path`, which names the members in other tables."""
  return {row['path'] or str(i): row for i, row in enumerate(result.rows)}


def is_stored(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> bool:
  """Returns whether the results are stored, so that `obtain` only reads."""
  return stored.exists(_results(wanted, folder), _key(wanted, folder))


def _key(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> dict[str, str]:
  """Returns the key of results: a digest of the request and of each model.

  The models are that of the training and that of the measurement.
  """
  config = _suite(wanted).config
  models = [
      {**config, **changes}.get('model', config_lib.TrainConfig().model)
      for changes in ({}, getattr(wanted, 'changes', {}))
  ]
  return {
      'digest': digest(wanted),
      'models': '+'.join(_model_digest(model, folder) for model in models),
  }


def _model_digest(model: str | made.Made, folder: pathlib.Path) -> str:
  """Returns a digest of a model's files, or '' before they are made."""
  path = (
      made.folder_of(model, folder)
      if isinstance(model, made.Made)
      else lm.find(model).path
  )
  return _files_digest(path) if path.exists() else ''


@functools.cache
def _files_digest(path: pathlib.Path) -> str:
  # Cached, because the files of a large model take a minute to read.
  total = hashlib.sha256()
  files = [path] if path.is_file() else sorted(path.rglob('*'))
  for file in files:
    if file.is_file():
      name = file.relative_to(path).as_posix()
      total.update(f'{name} {digests.sha256_of(file)}\n'.encode())
  return total.hexdigest()


def _suite(wanted: suites.Suite | suites.Reading) -> suites.Suite:
  return wanted.suite if isinstance(wanted, suites.Reading) else wanted


def _results(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> pathlib.Path:
  reading = isinstance(wanted, suites.Reading)
  return folder / _suite(wanted).name / (wanted.name if reading else 'results')


def digest(wanted: suites.Suite | suites.Reading) -> str:
  """Returns a digest of all inputs of the results except the models' weights.

  Every field of the config is included, even at its default, because a later
  version of the package may have another default.
  """
  fields = dataclasses.asdict(wanted)
  fields.pop('suite', None)
  suite = _suite(wanted)
  config = made.resolve({**suite.config, **getattr(wanted, 'changes', {})})
  fields['evals'] = evals.VERSION
  fields['arithmetic'] = publish.arithmetic(config)
  fields['config'] = {
      path: leaf.value
      for path, leaf in dotted.leaves(made.resolve(suite.config)).items()
      if path not in _LOCAL
  }
  # Made texts and models are identified by name and amount, because their
  # folder does not change results.
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
  """Trains a suite in the run directory `run`, or resumes its training.

  Texts and models that the suite needs are made in the folder `work`.
  """
  config = made.resolve(suite.config, work)
  if train.train(config, run, should_stop=should_stop) == train.PREEMPTED:
    raise Preempted(suite.name)


def _measure(
    wanted: suites.Suite | suites.Reading, folder: pathlib.Path
) -> evaluate.Evaluation:
  run = publish.open_run(folder / _suite(wanted).name / 'run')
  if isinstance(wanted, suites.Reading):
    run = _read_otherwise(run, wanted, folder)
  names = [n for n in wanted.measures if n != suites.TRAINING_TEXT]
  result = publish.evaluate_members(run, names)
  if suites.TRAINING_TEXT in wanted.measures:
    result = training_text.add(result, run)
  return result


def _read_otherwise(
    run: Any, wanted: suites.Reading, folder: pathlib.Path
) -> Any:
  """Returns the run with the text, model, sites and scales of the reading."""
  config = made.resolve({**wanted.suite.config, **wanted.changes}, folder)
  model = run.model
  if _language_model(config) != _language_model(run.config):
    name, dtype = _language_model(config)
    model = lm.load(name, dtype=dtype, mesh=run.mesh)
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
  others = load_run.load_suite(folder / wanted.scales_of.name / 'run')
  return run._replace(folded=_fold(run.members, others))


def _language_model(config: config_lib.TrainConfig) -> tuple[Any, Any]:
  return config.model, config_lib.dtype_on(
      config.lm_dtype, jax.default_backend()
  )


def _fold(members: Any, others: Any) -> list[Any]:
  """Returns the folded members, with the scales of another run's sites."""
  scales = {
      other.member.site: {
          'input_scale': other.input_scale,
          'target_scale': other.target_scale,
      }
      for other in others
  }
  return publish.fold([m._replace(**scales[m.member.site]) for m in members])
