"""Names the extra that brings a library that is not installed.

Loading, verifying and encoding with SAEs need JAX and NumPy only. The libraries
of the extras (setup.py) are imported like this, so that a command or a call
that needs one raises a single line with the cure:

  with extras.imports():
    import tensorstore
"""

from jumprelu import errors

# A top-level module -> the distribution that brings it.
_TRAIN = {
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
}
_INTEROP = {'torch': 'torch', 'transformers': 'transformers'}

EXTRAS = {'train': _TRAIN, 'interop': _INTEROP}


class imports:
  """A context for imports that raises `MissingExtraError` where one fails."""

  def __enter__(self) -> None:
    pass

  def __exit__(self, exc_type, exc_value, traceback) -> None:
    if not isinstance(exc_value, ModuleNotFoundError):
      return
    module = (exc_value.name or '').partition('.')[0]
    for extra, distributions in EXTRAS.items():
      if module in distributions:
        raise errors.MissingExtraError(
            f'needs {distributions[module]}; '
            f"pip install 'jumprelu[{extra}]'",
            name=module,
        ) from exc_value
