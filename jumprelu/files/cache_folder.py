"""The package's cache folder, which keeps files between runs."""

import os
import pathlib
import sys


def cache() -> pathlib.Path:
  """Returns $JUMPRELU_CACHE or ~/.cache/jumprelu."""
  folder = os.environ.get('JUMPRELU_CACHE') or '~/.cache/jumprelu'
  return pathlib.Path(folder).expanduser()


def of(cache_dir: str) -> pathlib.Path:
  """Returns the folder of --corpus.cache_dir, or `cache` if it is not set."""
  return pathlib.Path(cache_dir or cache()).expanduser()


def keep_programs() -> None:
  """Makes JAX keep compiled programs in the cache, also in child processes.

  Environment variables of JAX that are already set keep their values.
  """
  try:
    folder = cache() / 'compiled'
  except RuntimeError:  # Without a home folder nothing is cached.
    return
  settings = {
      'jax_compilation_cache_dir': str(folder),
      # By default JAX keeps no program that compiles in less than 1 s, but a
      # suite has many small programs.
      'jax_persistent_cache_min_compile_time_secs': 0.1,
  }
  for name, value in settings.items():
    if name.upper() in os.environ:
      continue
    os.environ[name.upper()] = str(value)
    if 'jax' in sys.modules:  # JAX reads the environment on import only.
      sys.modules['jax'].config.update(name, value)
