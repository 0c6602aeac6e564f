"""Texts and models that suites need and no package provides.

Each text or model is made once, in the folder of all suites. A config refers to
it by a `Made`, with its name and amount instead of its path, so that digests of
results do not depend on the folder.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import shutil
from typing import Any


@dataclasses.dataclass(frozen=True)
class Made:
  """A text or model that a config refers to before its folder exists."""

  kind: str  # A key of `_makers`: 'text' or 'model'.
  name: str
  # Characters of a text, or steps of training a model.
  amount: int
  # A value of the same field, for configs that are resolved without a folder: a
  # model with the same shapes, or a text that exists.
  stands_for: str


def resolve(
    config: Mapping[str, Any], folder: pathlib.Path | None = None
) -> Any:
  """Returns the resolved config.

  Args:
    config: Overrides of a `TrainConfig`; values may be `Made`.
    folder: The folder of all suites; missing texts and models are made in it.
      Without a folder nothing is made, and `stands_for` replaces each `Made`.
      Such a config is for counting and planning, not for running.
  """
  from jumprelu.training import config as config_lib

  def value(entry):
    if not isinstance(entry, Made):
      return entry
    return entry.stands_for if folder is None else str(obtain(entry, folder))

  return config_lib.resolve({name: value(v) for name, v in config.items()})


def obtain(wanted: Made, folder: pathlib.Path) -> pathlib.Path:
  """Returns the complete folder of a text or model, made first if missing."""
  path = folder_of(wanted, folder)
  if not path.is_dir():
    draft = path.with_name(path.name + '.draft')
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _makers()[wanted.kind](wanted.name, draft, wanted.amount)
    draft.rename(path)
  return path


def folder_of(wanted: Made, folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder that `obtain` makes below `folder`."""
  return folder / 'made' / f'{wanted.kind}_{wanted.amount}' / wanted.name


def _makers() -> dict[str, Callable[[str, pathlib.Path, int], None]]:
  from experiments.nano import finetune_nano, texts

  return {'text': texts.write, 'model': finetune_nano.make}
