"""The import of the `gemma` package without that of TensorFlow.

The package's type aliases name `tensorflow.Tensor`, which is all that its
transformer takes of TensorFlow. TensorFlow needs seconds to import, more than
everything else that a command imports.
"""

from collections.abc import Iterator
import contextlib
import importlib
import importlib.machinery
import sys
import types
from typing import Any

_NAME = 'tensorflow'


class _StandIn(types.ModuleType):
  """Has `Tensor`; any other attribute imports TensorFlow and is read there."""

  def __init__(self):
    super().__init__(_NAME)
    self.__spec__ = importlib.machinery.ModuleSpec(_NAME, None)
    # No array is an instance of it.
    self.Tensor = type('Tensor', (), {})

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)
    _remove(self)
    return getattr(importlib.import_module(_NAME), name)


def _remove(module: types.ModuleType) -> None:
  if sys.modules.get(_NAME) is module:
    del sys.modules[_NAME]


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
  """Lets modules import TensorFlow without loading it.

  Afterwards TensorFlow is imported as ever.
  """
  if _NAME in sys.modules:
    yield
    return
  module = _StandIn()
  sys.modules[_NAME] = module
  try:
    yield
  finally:
    _remove(module)
