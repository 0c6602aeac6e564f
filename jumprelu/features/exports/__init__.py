"""Exports of features, for tools that show or explain latents."""

from collections.abc import Sequence
import os
from typing import Any

from jumprelu import errors
from jumprelu.features import reading
from jumprelu.release.exports import source as source_lib

Sources = Sequence[source_lib.Source]


def read_manifest(
    folder: str | os.PathLike[str], sources: Sources
) -> dict[str, Any]:
  """Returns the manifest of features, which must be those of the SAEs.

  Raises:
    MissingInputError: there are no features.
    UserError: the features lack an SAE, or are of one with other arrays.
  """
  manifest = reading.read_manifest(folder)
  digests = {m['path']: m['sha256'] for m in manifest['members']}
  for source in sources:
    if digests.get(source.path) != source.released.digest():
      problem = 'of another SAE' if source.path in digests else 'missing'
      raise errors.UserError(
          f'--features={folder}: the features of {source.path} are {problem};'
          ' collect them with: jumprelu features --release=DIR --out=DIR2'
      )
  return manifest


def read_pieces(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the text of each token."""
  return reading.read_vocabulary(folder)['piece'].to_pylist()
