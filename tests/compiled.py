"""A compilation cache for programs that several tests share."""

import contextlib

import jax


@contextlib.contextmanager
def compile_once(folder):
  """Caches compiled programs in a folder while the context is open."""
  names = {
      'jax_compilation_cache_dir': str(folder),
      'jax_persistent_cache_min_compile_time_secs': 0.0,
      'jax_persistent_cache_min_entry_size_bytes': 0,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
