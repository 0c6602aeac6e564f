"""The manifest of a collection, and the vocabulary with its counts."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from jumprelu import data
from jumprelu.features import arrow, reading, segments, statistics
from jumprelu.files import formats, json_files


def write(
    folder: pathlib.Path,
    parts: Sequence[segments.Segment],
    *,
    identity: Mapping[str, Any],
    tokenizer: data.Tokenizer,
    members: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
  """Writes the vocabulary and, last, the manifest, which it returns."""
  counts = np.zeros(tokenizer.vocab_size, np.int64)
  profile = np.zeros(statistics.POSITION_BINS, np.int64)
  positions, documents = 0, np.zeros(0, np.int64)
  for segment in parts:
    kept = segment.tokens[segment.keep]
    counts += np.bincount(kept, minlength=len(counts))[: len(counts)]
    profile += np.bincount(
        segment.bins[segment.keep], minlength=statistics.POSITION_BINS
    )
    positions += segment.tokens.size
    documents = np.union1d(documents, segment.documents[segment.keep])
  arrow.write(
      folder / reading.VOCABULARY,
      {
          'token': np.arange(len(counts), dtype=np.int32),
          'piece': [tokenizer.piece(i) for i in range(len(counts))],
          'count': counts,
      },
  )
  manifest = json_files.to_plain(
      {
          **formats.stamp(formats.Kind.FEATURES),
          **identity,
          'positions': positions,
          'tokens': profile.sum(),
          'documents': len(documents),
          'position_totals': profile.tolist(),
          'histogram_edges': statistics.EDGES.tolist(),
          'vocabulary': reading.VOCABULARY,
          'texts': reading.TEXTS,
          'members': [
              {**member, **files}
              for member, files in zip(
                  identity['members'], members, strict=True
              )
          ],
      }
  )
  json_files.write_json(folder / reading.MANIFEST, manifest, seal=True)
  return manifest
