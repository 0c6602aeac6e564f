"""Where things are kept between runs."""

import os
import pathlib
import sys


def cache() -> pathlib.Path:
  """Returns $JUMPRELU_CACHE or ~/.cache/jumprelu."""
  given = os.environ.get('JUMPRELU_CACHE')
  return pathlib.Path(given or pathlib.Path.home() / '.cache' / 'jumprelu')


def keep_programs() -> None:
  """Has JAX keep what it compiles in the cache; its own settings stand above.

  Processes that are started from this one do so too.
  """
  try:
    folder = cache() / 'compiled'
  except RuntimeError:  # There is no home.
    return
  settings = {
      'jax_compilation_cache_dir': str(folder),
      # A suite's small programs add up; JAX would compile below 1 s again.
      'jax_persistent_cache_min_compile_time_secs': 0.1,
  }
  for name, value in settings.items():
    if name.upper() in os.environ:
      continue
    os.environ[name.upper()] = str(value)
    if 'jax' in sys.modules:  # It has read the environment.
      sys.modules['jax'].config.update(name, value)
