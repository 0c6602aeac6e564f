"""Versions of packages, for the records of runs and releases."""

from collections.abc import Iterable
import importlib.metadata


def of_packages(names: Iterable[str]) -> dict[str, str]:
  """Returns the version of each named package that is installed."""
  versions = {}
  for name in names:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue  # The package belongs to an extra that is not installed.
  return versions
