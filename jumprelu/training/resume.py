"""The rules of resuming: the inputs and fields that a run must not change."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jumprelu import errors, lm
from jumprelu.data import sources
from jumprelu.files import dotted
from jumprelu.training import config as config_lib

# Fields that may differ when a run is resumed, because they do not change its
# results: devices, speed, checkpoints, later evaluations, and paths. A recipe
# has no effect besides the values of other fields. A name that ends with a dot
# is a whole part of the config.
SOFT = (
    'checkpoint.',
    'mesh.',
    'eval.',
    'stream.lm_sequences',
    'stream.batches_per_dispatch',
    'corpus.cache_dir',
    'corpus.data_dir',
    'backend',
    'recipe',
    'store',
)


def differences(
    old: config_lib.TrainConfig, new: config_lib.TrainConfig
) -> list[str]:
  """Returns a text for each field that differs and must not.

  These are the fields that are neither among `SOFT` nor `moved`.
  """
  before, after = dotted.leaves(old), dotted.leaves(new)
  free = (*SOFT, *moved(old, new))
  return [
      f'{path} was {before[path].value!r}, is {leaf.value!r}'
      for path, leaf in after.items()
      if leaf.value != before[path].value and not dotted.is_among(path, free)
  ]


def moved(
    old: config_lib.TrainConfig, new: config_lib.TrainConfig
) -> tuple[str, ...]:
  """Returns those of `data` and `model` whose local path differs.

  Their content is compared by its digest (`Origin.check`).
  """
  fields = []
  if old.data != new.data and all(map(sources.is_local, (old.data, new.data))):
    fields.append('data')
  named = all(model in lm.MODELS for model in (old.model, new.model))
  if old.model != new.model and not named:
    fields.append('model')
  return tuple(fields)


class Origin(NamedTuple):
  """The digests of text and language model, and the model's dtype."""

  data_digest: str
  lm_digest: str
  lm_dtype: str

  def is_recorded_in(self, record: Mapping[str, Any]) -> bool:
    """Returns whether a record has both digests."""
    digests = ('data_digest', 'lm_digest')
    return all(record.get(name) == getattr(self, name) for name in digests)

  def check(
      self,
      record: Mapping[str, Any],
      *,
      out: str,
      model: str,
      before_model: str = '',
  ) -> None:
    """Raises UserError if a checkpoint is from other text or another model.

    If the checkpoint has no digest of the model, or if its dtype differs, the
    weights cannot be compared. The model must then have its former name or
    path.

    Args:
      record: The metadata of the checkpoint.
      out: The run directory, for the message.
      model: The value of --model.
      before_model: The value of --model in the config of the run so far, if it
        differs from `model`.
    """
    before = record['data_digest']
    if before != self.data_digest:
      raise errors.UserError(
          f'--out={out}: was trained on other text (digest {before[:12]}, now'
          f' {self.data_digest[:12]}); choose another directory, or the same'
          ' text'
      )
    # Older checkpoints have no digest of the model. On another device,
    # --lm_dtype=auto may choose another dtype, which changes the digest.
    before = record.get('lm_digest')
    if not before or record['lm_dtype'] != self.lm_dtype:
      if before_model:
        raise errors.UserError(
            f'--model={model}: was {before_model}, and its weights cannot be'
            ' compared, because the checkpoint has'
            + (
                f' their digest in {record["lm_dtype"]}; set'
                f' --lm_dtype={record["lm_dtype"]}'
                if before
                else f' no digest; use --model={before_model}'
            )
        )
      return
    if before != self.lm_digest:
      raise errors.UserError(
          f'--model={model}: has other weights (digest {self.lm_digest[:12]})'
          f' than --out={out} was trained on ({before[:12]}); choose another'
          ' directory, or the same model'
      )
