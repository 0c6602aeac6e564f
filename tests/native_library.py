"""Skips of tests that need the native library, or its integer kernel."""

import pytest

from jumprelu.ops import native

ENCODED = 'native, encoded'


def need(*paths: str) -> None:
  """Skips a test if this machine lacks one of its paths.

  Args:
    *paths: Backends. `native` needs the library, and `ENCODED`, the native step
      that encodes, also an integer kernel. Others need nothing.
  """
  if any(path.startswith('native') for path in paths) and native.why_not():
    pytest.skip(native.why_not())
  if ENCODED in paths and not native.encode_kernel():
    pytest.skip('this CPU has no integer kernel')
