"""Export of features to the viewer of circuit-tracer's attribution graphs.

    features/index.json.gz   for each layer: {"filename": ..., "offsets": [...]}
    features/layer_0.bin     the records of a layer's latents

A record is the length of its data (4 bytes, little-endian) and zlib data with
JSON. `offsets` has the start of each record and the end of the last, so that a
static server can return single records.
"""

from collections.abc import Mapping, Sequence
import gzip
import json
import os
import pathlib
import struct
from typing import Any
import zlib

from jumprelu.features import exports, reading

_BATCH = 512
_FOLDER = 'features'


def write(
    sources: exports.Sources,
    out: pathlib.Path,
    *,
    folder: str | os.PathLike[str],
) -> None:
  """Writes the features of transcoders, one per layer, below `out`.

  Args:
    sources: The transcoders.
    out: The folder of the set, which exists.
    folder: The features of the transcoders.

  Raises:
    MissingInputError: there are no features.
    UserError: the features are not those of the transcoders.
  """
  manifest = exports.read_manifest(folder, sources)
  pieces = exports.read_pieces(folder)
  (out / _FOLDER).mkdir()
  layers = {int(s.released.origin.layer or 0): s for s in sources}
  index: list[dict[str, Any] | None] = [None] * (max(layers) + 1)
  for layer, source in layers.items():
    name, offsets, position = f'layer_{layer}.bin', [0], 0
    with open(out / _FOLDER / name, 'wb') as file:
      for start in range(0, source.released.sae.width, _BATCH):
        stop = min(start + _BATCH, source.released.sae.width)
        rows = reading.read_latents(
            folder, source.path, latents=range(start, stop)
        )
        for row in rows:
          record = _record(
              row,
              transcoder=source.name,
              edges=manifest['histogram_edges'],
              pieces=pieces,
          )
          data = zlib.compress(json.dumps(record, ensure_ascii=False).encode())
          file.write(struct.pack('<I', len(data)) + data)
          position += 4 + len(data)
          offsets.append(position)
    index[layer] = {'filename': name, 'offsets': offsets}
  data = gzip.compress(json.dumps(index).encode(), mtime=0)
  (out / _FOLDER / 'index.json.gz').write_bytes(data)


def _record(
    row: Mapping[str, Any],
    *,
    transcoder: str,
    edges: Sequence[float],
    pieces: Sequence[str],
) -> dict[str, Any]:
  """Returns the viewer's record of a latent."""
  groups = {'Top activations': row['examples']}
  # The viewer shows the strongest band first.
  for example in reversed(row['band_examples']):
    groups.setdefault(f'Band {example["band"] + 1}', []).append(example)
  groups['No activation'] = row['silent_examples']
  texts = {
      name: [pieces[entry['token']] for entry in row[column]]
      for name, column in (
          ('top_logits', 'promoted'),
          ('bottom_logits', 'suppressed'),
      )
  }
  return {
      'transcoder_id': transcoder,
      'index': row['latent'],
      'examples_quantiles': [
          {
              'quantile_name': name,
              'examples': [_example(example, pieces) for example in group],
          }
          for name, group in groups.items()
          if group
      ],
      **texts,
      'act_min': 0.0,
      'act_max': row['largest'],
      'quantile_values': row['band_edges'] or [],
      'histogram': row['histogram'],
      'histogram_edges': list(edges),
      'activation_frequency': row['frequency'],
  }


def _example(
    example: Mapping[str, Any], pieces: Sequence[str]
) -> dict[str, Any]:
  return {
      'tokens': [pieces[token] for token in example['tokens']],
      'tokens_acts_list': example['values'],
      'train_token_ind': example['index'],
      'is_repeated_datapoint': False,
  }
