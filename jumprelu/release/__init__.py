"""Releases: folders of trained SAEs, written, verified and loaded.

The README of each release shows how to load a member with
`release.load_member(...)`. Names are imported on first use, because
`jumprelu verify` must not import the libraries that only writing needs.
"""

import importlib
from typing import Any

# Public name -> the module that defines it.
_OWNERS = {
    'Member': 'members',
    'Provenance': 'members',
    'check_target': 'write',
    'list_members': 'members',
    'load_member': 'members',
    'member_paths': 'write',
    'verify_release': 'verify',
    'write_release': 'write',
}


def __getattr__(name: str) -> Any:
  """Returns the public object of this name, and imports its module."""
  if name not in _OWNERS:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  owner = importlib.import_module(f'{__name__}.{_OWNERS[name]}')
  return getattr(owner, name)
