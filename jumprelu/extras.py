"""Names the extra that installs a missing library.

Loading, verifying and encoding with SAEs need JAX and NumPy only. Libraries of
the extras (setup.py) are imported as follows:

  with extras.imports():
    import tensorstore

If the library is missing, the error is a single line with the command that
installs it.
"""

from collections.abc import Sequence
import importlib.util

from jumprelu import errors

# {extra: {top-level module: its distribution}}.
EXTRAS = {
    'train': {
        'array_record': 'array-record',
        'etils': 'etils',
        'flax': 'flax',
        'gemma': 'gemma',
        'grain': 'grain',
        'matplotlib': 'matplotlib',
        'orbax': 'orbax-checkpoint',
        'pyarrow': 'pyarrow',
        'sentencepiece': 'sentencepiece',
        'tensorflow': 'tensorflow',
        'tensorflow_datasets': 'tensorflow-datasets',
        'tensorstore': 'tensorstore',
    },
    'tensorboard': {'tensorboardX': 'tensorboardX'},
    'serve': {'starlette': 'starlette', 'uvicorn': 'uvicorn'},
    'gguf': {'gguf': 'gguf'},
    'interop': {
        'accelerate': 'accelerate',
        'torch': 'torch',
        'transformers': 'transformers',
    },
}
# The largest number of libraries that a message names.
_MAX_NAMED = 3


class imports:
  """A context that raises `MissingExtraError` for missing libraries of extras.

  Other import errors are unchanged.
  """

  def __enter__(self) -> None:
    pass

  def __exit__(self, exc_type, exc_value, traceback) -> None:
    if not isinstance(exc_value, ModuleNotFoundError):
      return
    module = (exc_value.name or '').partition('.')[0]
    for extra, distributions in EXTRAS.items():
      if module in distributions:
        raise _missing(extra, [module]) from exc_value


def check(extra: str) -> None:
  """Raises `MissingExtraError` unless an extra's libraries are installed.

  The check is fast, because it imports no library.
  """
  missing = [m for m in EXTRAS[extra] if importlib.util.find_spec(m) is None]
  if missing:
    raise _missing(extra, missing)


def _missing(extra: str, modules: Sequence[str]) -> errors.MissingExtraError:
  names = ', '.join(EXTRAS[extra][module] for module in modules[:_MAX_NAMED])
  if len(modules) > _MAX_NAMED:
    names += f' and {len(modules) - _MAX_NAMED} more'
  return errors.MissingExtraError(
      f"needs {names}; pip install 'jumprelu[{extra}]'", name=modules[0]
  )
