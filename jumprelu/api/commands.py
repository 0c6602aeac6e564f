"""The commands as functions, with the same configs."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

from jumprelu import extras
from jumprelu.api import loading
from jumprelu.api import suite as suite_lib


def train_suite(
    out: str | os.PathLike[str], *, quiet: bool = False, **fields: Any
) -> str:
  """Trains a suite in the directory `out`, or resumes it; returns the outcome.

  Args:
    out: The run directory.
    quiet: Whether to print neither phases nor progress.
    **fields: Fields of the training config as `jumprelu train --helpfull` lists
      them, with `__` for the dot: `tokens=500_000`, `optim__b2=0.9`.

  Returns:
    'done', or 'preempted' if the process had to stop early.

  >>> jumprelu.train_suite(
  ...     'runs/a', sites=('resid_post',), widths=(64,), tokens=65_536,
  ...     eval__tokens=8_192, quiet=True)
  'done'
  """
  extras.check('train')
  from jumprelu.training import config, train

  dotted = {name.replace('__', '.'): value for name, value in fields.items()}
  watch = train.QUIET if quiet else train.PRINTED
  return train.train(config.resolve(dotted), out, watch=watch)


def read_metrics(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the training curves of a run: a row per segment and member.

  A row has `member`, its site, width, variant and sparsity, `step`, `l0`,
  `fvu`, `dead_share`, `loss`, the learning rate and further numbers. The rows
  can be read by `pandas.DataFrame`.

  Args:
    run: The run directory, local or remote.

  >>> rows = jumprelu.read_metrics('runs/a')
  >>> rows[-1]['step'], rows[-1]['member']
  (256, 'resid_post-64-jumprelu-lambda_0.004-seed_0')
  """
  with extras.imports():
    from etils import epath

  from jumprelu.training import metrics_file

  return metrics_file.read(epath.Path(run).expanduser())


def write_release(
    run: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
) -> suite_lib.Suite:
  """Evaluates a run and writes its release; returns the release's suite.

  Args:
    run: The run directory.
    out: The folder of the release.
    **options: Those of `release/publish.release_run`, for instance
      `unfinished=True`.

  >>> jumprelu.write_release('runs/a', 'releases/a')
  releases/a: 3 SAEs
  ...
  """
  extras.check('train')
  from jumprelu.release import publish

  opened = publish.open_run(run)
  publish.release_run(opened, publish.evaluate_run(opened), out, **options)
  return loading.load(out)


def evaluate_suite(
    suite: suite_lib.Suite,
    *,
    text: str | None = None,
    model: str | None = None,
    measures: Sequence[str] = (),
    config: Any = None,
) -> list[dict[str, Any]]:
  """Returns a row of results for each SAE, on held-out text.

  Args:
    suite: The SAEs; all of one language model.
    text: The text, as `--data` takes it; the training text's if None.
    model: The language model; that of the SAEs if None.
    measures: Names of further measures (`jumprelu evaluate --help=measures`).
    config: A `jumprelu.evals.Config`; the default if None.

  >>> from jumprelu import evals
  >>> rows = jumprelu.evaluate_suite(
  ...     jumprelu.load('releases/a'), config=evals.Config(tokens=8_192))
  >>> {'l0', 'fvu', 'delta_loss'} <= set(rows[0])
  True
  """
  extras.check('train')
  from jumprelu import evals, sharding
  from jumprelu.release import evaluation, formats

  released = {sae.path: sae.released for sae in suite.values()}
  first = next(iter(released.values()))
  training = first.training
  results = evaluation.evaluate_released(
      released,
      model=model or formats.model_of(released),
      lm_dtype='auto',
      text=text or training.get('data', 'stdlib'),
      corpus=evaluation.corpus_config(training),
      config=config or evals.Config(),
      mesh=sharding.Config(),
      precision=training.get('matmul_precision'),
      measures=measures,
  )
  return results.rows


def collect_features(
    suite: suite_lib.Suite,
    out: str | os.PathLike[str],
    *,
    text: str | None = None,
    model: str | None = None,
    tokens: int | None = None,
    config: Any = None,
) -> dict[str, Any]:
  """Writes the features of all latents to a folder; returns its manifest.

  The folder has one Parquet file per SAE with a row per latent
  (docs/features.md).

  Args:
    suite: The SAEs; all of one language model.
    out: The folder, which must not exist.
    text: The text, as `--data` takes it; the training text's if None. Only
      held-out documents are read.
    model: The language model; that of the SAEs if None.
    tokens: The number of positions to read; that of `config` if None.
    config: A `jumprelu.features.Config`; the default if None.

  >>> manifest = jumprelu.collect_features(
  ...     jumprelu.load('releases/a'), 'features/a', tokens=8_192)
  >>> len(manifest['members'])
  3
  """
  extras.check('train')
  from jumprelu import features
  from jumprelu.features import collect

  released = {sae.path: sae.released for sae in suite.values()}
  config = config or features.Config()
  if tokens is not None:
    config = dataclasses.replace(config, tokens=tokens)
  return collect.collect(
      released,
      pathlib.Path(out).expanduser(),
      source=collect.source_of(released, model=model, text=text),
      config=config,
  )
