"""Evaluation of released SAEs of any format on held-out text."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jumprelu import data, errors, evals, lm, sharding
from jumprelu.evals import evaluate
from jumprelu.evals.measures import config as settings_lib
from jumprelu.files import dotted
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
  """
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
    return evaluate.evaluate_members(
        language_model,
        members,
        held_out=prepared.held_out,
        train=prepared.train,
        config=config,
        mesh=devices,
        measures=measures,
        settings=settings,
    )


def make_member(path: str, released: record.Released) -> evaluate.EvalMember:
  """Returns a released SAE as a member of an evaluation."""
  return evaluate.EvalMember(
      sae=released.sae,
      params=released.params,
      reads=released.reads(),
      meta=dict(released.meta) | {'path': path},
  )
