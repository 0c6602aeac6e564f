"""A folder of features of small SAEs, written by hand."""

import pyarrow
from pyarrow import parquet

from jumprelu.features import reading
from jumprelu.files import formats, json_files

PIECES = ['<pad>', '<eos>', '<bos>', ' the', 'é', '</script>', '\n', ' cat']
# Three passages; the last is shorter.
PASSAGES = [[3, 7, 6, 4], [5, 3, 7, 7], [4, 6]]
EDGES = [0.5, 1.0, 2.0]


def window(value, *, tokens, values, index, position, **fields):
  return {
      'value': value,
      **fields,
      'position': position,
      'document': position - 3,
      'offset': 3,
      'index': index,
      'tokens': tokens,
      'values': values,
  }


def latent(path, i):
  """Returns a row; latents 3, 6, ... never fire."""
  fires = i % 3 != 0 or i == 0
  largest = 1.5 + i if fires else 0.0
  top = [
      window(
          largest, tokens=[3, 7, 6], values=[0.0, largest, 0.25], index=1,
          position=40 + i,
      )
  ]  # fmt: skip
  bands = [
      window(0.75, tokens=[7, 7], values=[0.75, 0.0], index=0, position=9, band=0),
      window(1.25, tokens=[7, 4], values=[0.0, 1.25], index=1, position=5, band=1),
  ]  # fmt: skip
  silent = [window(0.0, tokens=[3, 3], values=[0.0, 0.0], index=0, position=70)]
  return {
      'member': path,
      'latent': i,
      'tokens': 10,
      'count': 3 if fires else 0,
      'frequency': 0.3 if fires else 0.0,
      'largest': largest,
      'histogram': [0, 2, 0, 1] if fires else [0, 0, 0, 0],
      'band_edges': [0.5, 1.0, largest] if fires else None,
      'examples': top if fires else [],
      'band_examples': bands if fires else [],
      'silent_examples': silent,
      'promoted': [{'token': 7, 'effect': 2.0}, {'token': 4, 'effect': 1.0}],
      'suppressed': [{'token': 5, 'effect': -1.5}],
      'neighbours': [{'latent': (i + 1) % 12, 'cosine': 0.5}],
  }


def firings():
  """Yields (passage, token, latents, values) of each token of the passages."""
  for text, tokens in enumerate(PASSAGES):
    for index in range(len(tokens)):
      active = [11, 2] if (text + index) % 2 else []
      yield text, index, active, [3.5, 1.0 + text][: len(active)]


def write(folder, sources):
  """Writes the features of SAEs with 12 latents each."""
  members = []
  for source in sources:
    files = reading.member_files(source.path)
    rows = [latent(source.path, i) for i in range(12)]
    table(folder / files['file'], rows)
    names = ('text', 'index', 'latents', 'values')
    table(
        folder / files['text_firings'],
        [dict(zip(names, row, strict=True)) for row in firings()],
    )
    members.append(
        {'path': source.path, 'sha256': source.released.digest(), 'width': 12}
        | files
    )
  pieces = [{'token': i, 'piece': p, 'count': 1} for i, p in enumerate(PIECES)]
  table(folder / reading.VOCABULARY, pieces)
  table(
      folder / reading.TEXTS,
      [{'text': i, 'tokens': tokens} for i, tokens in enumerate(PASSAGES)],
  )
  manifest = {
      **formats.stamp(formats.Kind.FEATURES),
      'positions': 64,
      'text': {'source': 'stdlib', 'split': 'held_out', 'sequence_length': 16},
      'histogram_edges': EDGES,
      'vocabulary': reading.VOCABULARY,
      'texts': reading.TEXTS,
      'members': members,
  }
  json_files.write_json(folder / reading.MANIFEST, manifest)
  return folder


def table(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(rows), path)
