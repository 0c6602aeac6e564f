"""Evaluation of released SAEs of any format on held-out text."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import jax

from jumprelu import data, errors, evals, lm, sharding
from jumprelu.data import corpus as corpus_lib
from jumprelu.evals import evaluate
from jumprelu.evals import partial as partial_lib
from jumprelu.evals.measures import config as settings_lib
from jumprelu.files import digests, dotted
from jumprelu.ops import products
from jumprelu.release.formats import record
from jumprelu.training import config as config_lib


def corpus_config(training: Mapping[str, Any]) -> data.Config:
  """Returns the config that read the training text, with default local paths.

  Args:
    training: The config of the training run; empty if it is unknown.

  Raises:
    DataError: the config has fields or values of another version.
  """
  fields = dict(training.get('corpus', {}))
  for local in ('cache_dir', 'data_dir'):
    fields.pop(local, None)
  try:
    return dotted.replace(data.Config(), fields)
  except errors.UserError as error:
    raise errors.DataError(
        f'--release: config.json: training.corpus: {error}; install the'
        ' version of jumprelu that wrote it, or a newer one'
    ) from None


def evaluate_released(
    released: Mapping[str, record.Released],
    *,
    model: str,
    lm_dtype: str,
    text: str,
    corpus: data.Config,
    config: evals.Config,
    mesh: sharding.Config,
    precision: str | None = None,
    measures: Sequence[str] = (),
    settings: settings_lib.Config | None = None,
    partial: pathlib.Path | None = None,
) -> evaluate.Evaluation:
  """Returns the evaluation of SAEs whose origins are complete.

  Args:
    released: The SAEs by path; each row of results has the path as a column.
    model: The language model's name or folder.
    lm_dtype: The precision of the language model: float32, bfloat16 or auto.
    text: The source of the text, as in the field `data` of a training config.
    corpus: The config with which the text is read and its held-out part chosen.
    config: The config of the evaluation.
    mesh: The config of the mesh.
    precision: The precision of matrix products; None or 'default' for that of
      the platform.
    measures: The names of additional measures.
    settings: The settings of the measures; the defaults if None.
    partial: A folder of partial results, from which an interrupted evaluation
      resumes; none are kept if None. The caller removes it.
  """
  settings = settings or settings_lib.Config()
  members = [make_member(path, sae) for path, sae in released.items()]
  # Shapes, then the text, precede the load of the model, which takes longest.
  source = lm.find(model)
  evaluate.check_shapes(source.config, members)
  tokenizer = data.Tokenizer(source.tokenizer_path, rows=source.config.vocab)
  prepared = data.prepare(text, tokenizer, corpus)
  devices = sharding.make_mesh(mesh)
  language_model = lm.load(
      model,
      dtype=config_lib.dtype_on(lm_dtype, jax.default_backend()),
      mesh=devices,
  )
  with products.precision(precision):
    key = {}
    if partial is not None:
      key = _key(language_model, released, prepared, config, settings)
    return evaluate.evaluate_members(
        language_model,
        members,
        held_out=prepared.held_out,
        train=prepared.train,
        config=config,
        mesh=devices,
        measures=measures,
        settings=settings,
        partial=partial_lib.Partial(partial, key),
    )


def _key(
    model: lm.LanguageModel,
    released: Mapping[str, record.Released],
    prepared: corpus_lib.Prepared,
    config: evals.Config,
    settings: settings_lib.Config,
) -> dict[str, Any]:
  """Returns everything that determines an evaluation, as JSON values."""
  return {
      'evals': evals.VERSION,
      'saes': [
          [path, repr((sae.sae, sae.reads())), sae.meta, sae.digest()]
          for path, sae in released.items()
      ],
      'lm': digests.tree_digest(model.params),
      'eval': dataclasses.asdict(config),
      'held_out': prepared.held_out.digest,
      'train': prepared.train.digest,
      'measures': dataclasses.asdict(settings),
      'labels': _labels_digest(settings.probing.data),
      'platform': jax.default_backend(),
      'matmul_precision': jax.config.jax_default_matmul_precision,
  }


def _labels_digest(path: str) -> list[str]:
  """Returns the SHA-256 of each file with labelled texts that exists."""
  where = pathlib.Path(path or 'no such file')
  files = sorted(where.glob('*.jsonl')) if where.is_dir() else [where]
  return [digests.sha256_of(file) for file in files if file.is_file()]


def make_member(path: str, released: record.Released) -> evaluate.EvalMember:
  """Returns a released SAE as a member of an evaluation."""
  return evaluate.EvalMember(
      sae=released.sae,
      params=released.params,
      reads=released.reads(),
      meta=dict(released.meta) | {'path': path},
  )
