"""What suites read and nobody ships: made once, in the folder of the work.

A config names such a text or model by a `Made`. Digests of results have its
name and amount in them, so they do not depend on where the work lies.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import shutil
from typing import Any


@dataclasses.dataclass(frozen=True)
class Made:
  """A value of a config that is a folder."""

  kind: str  # What makes it, a key of `_makers`.
  name: str
  # How much of it: a text's characters, a model's steps.
  amount: int
  # What has the same shapes, for a config that nothing is read by.
  stands_for: str


def resolve(
    config: Mapping[str, Any], folder: pathlib.Path | None = None
) -> Any:
  """Resolves a config; without `folder` nothing is made, nor can be read.

  Args:
    config: Overrides of a `TrainConfig`; values may be `Made`.
    folder: Where suites are kept; what is missing is made below it.
  """
  from jumprelu.training import config as config_lib

  def value(entry):
    if not isinstance(entry, Made):
      return entry
    return entry.stands_for if folder is None else str(obtain(entry, folder))

  return config_lib.resolve({name: value(v) for name, v in config.items()})


def obtain(wanted: Made, folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder of what is wanted, whole; makes it if it is missing."""
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
