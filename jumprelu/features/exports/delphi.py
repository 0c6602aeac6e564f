"""Export to delphi: a cache of latents, so that it needs no language model.

    latents/MEMBER/0_511.safetensors   locations, activations and tokens
    latents/MEMBER/config.json

The cache has all active latents at all tokens of the passages of a collection
(`--features.texts` passages of `--features.text_length` tokens). delphi wants
about 10 million tokens for its published scores. Its own caches hold
activations as float16, and this one as float32.
"""

import os
import pathlib

import numpy as np

from jumprelu.features import exports, reading
from jumprelu.files import json_files
from jumprelu.release import layout
from jumprelu.release.exports import source as source_lib

NAME = 'delphi'
# Fewer tokens give few examples per latent.
_FEW_TOKENS = 1_000_000
_PAD = 0


def write(
    sources: exports.Sources,
    out: pathlib.Path,
    *,
    folder: str | os.PathLike[str],
) -> list[str]:
  """Writes the cache of each SAE; returns warnings.

  Args:
    sources: The SAEs.
    out: The folder to write, which exists and is empty.
    folder: The features of the SAEs.

  Raises:
    MissingInputError: there are no features.
    UserError: the features are not those of the SAEs.
  """
  manifest = exports.read_manifest(folder, sources)
  passages = reading.read_texts(folder)['tokens'].to_pylist()
  length = max(map(len, passages), default=1)
  tokens = np.full((len(passages), length), _PAD, np.int64)
  for row, ids in zip(tokens, passages, strict=True):
    row[: len(ids)] = ids
  warnings = []
  for source in sources:
    model, notes = source_lib.model_name(source)
    warnings += notes
    # delphi lists folders, and does not look into nested ones.
    target = out / 'latents' / source.name.replace('/', '.')
    target.mkdir(parents=True)
    width = source.released.sae.width
    source_lib.write_safetensors(
        target / f'0_{width - 1}.safetensors',
        _firings(folder, source.path) | {'tokens': tokens},
    )
    config = {
        'model_name': model if notes else f'google/{model}',
        'dataset_repo': manifest['text']['source'],
        'dataset_split': manifest['text']['split'],
        'dataset_name': '',
        'dataset_column': 'text',
        'batch_size': len(passages),
        'ctx_len': length,
        'cache_ctx_len': length,
        'n_tokens': tokens.size,
        'n_splits': 1,
    }
    json_files.write_json(target / layout.CONFIG, config)
  read = sum(map(len, passages))
  if read < _FEW_TOKENS:
    warnings.append(
        f'the passages have {read:,} tokens, and delphi finds few examples in'
        ' them: collect features with more --features.texts'
    )
  return warnings


def _firings(
    folder: str | os.PathLike[str], member: str
) -> dict[str, np.ndarray]:
  """Returns the places (passage, token, latent) of firings, and their values."""
  table = reading.read_text_firings(folder, member)
  counts = [len(row) for row in table['latents'].to_pylist()]
  places = np.stack(
      [
          np.repeat(table['text'].to_numpy(), counts),
          np.repeat(table['index'].to_numpy(), counts),
          table['latents'].combine_chunks().flatten().to_numpy(),
      ],
      axis=1,
  )
  values = table['values'].combine_chunks().flatten().to_numpy()
  order = np.lexsort(places.T[::-1])
  # delphi reads 16 or 32 bits.
  kind = np.uint16 if places.max(initial=0) < 2**16 else np.uint32
  return {
      'locations': places[order].astype(kind),
      'activations': values[order].astype(np.float32),
  }
