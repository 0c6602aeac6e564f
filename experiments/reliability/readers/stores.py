"""Readers of stores of activations, folders of features and explanations."""

import pathlib
import types
from typing import Any

import numpy as np

from experiments.reliability import mutations
from experiments.reliability.readers import base
from jumprelu import lm
from jumprelu.activations import store
from jumprelu.activations.store import arrays, record
from jumprelu.explain import llm
from jumprelu.features import arrow, reading
from jumprelu.features import exports as feature_exports
from jumprelu.files import formats, json_files

_JSON = (mutations.of_json,)
_BYTES = (mutations.of_bytes,)
_LINES = (mutations.of_lines, mutations.of_lines, mutations.of_bytes)
_TAP = 'layer_1.resid_post'
_D, _WIDTH = 4, 8
_MEMBER = 'resid_post/layer_1/width_8/average_l0_3'


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  return [
      base.Reader(
          'store', _store, _read_store,
          {'manifest.json': (*_JSON, *_BYTES), 'blocks.jsonl': _LINES,
           '**/zarr.json': _JSON, '**/c/**/*': _BYTES},
          protection=base.Protection.VALUES,
      ),
      base.Reader(
          'store_progress', _store_progress, _read_progress,
          {'progress.json': _JSON, 'blocks.jsonl': _LINES}, writes=True,
      ),
      base.Reader(
          'features', _features, _read_features,
          {'manifest.json': _JSON, 'explanations/*/manifest.json': _JSON,
           'members/**/average_l0_3.parquet': _BYTES,
           'vocabulary.parquet': _BYTES},
      ),
      base.Reader(
          'answers', _answers, _read_answers, {'*.jsonl': _LINES},
          is_checked=True,
      ),
  ]  # fmt: skip


def _geometry() -> store.Geometry:
  return store.make_geometry(
      {_TAP: _D}, 'float32', blocks=2, block_positions=16, batch=8, shards=2
  )


def _identity() -> dict[str, Any]:
  return {'model': 'gemma2_nano', 'lm_dtype': 'float32'}


def _facts() -> dict[str, Any]:
  return {
      **formats.stamp(formats.Kind.STORE),
      'identity': _identity(),
      'geometry': _geometry().to_json(),
      'arrays': {_TAP: _TAP},
      'scales': {_TAP: 2.0},
      'data_digest': '0' * 64,
  }


def _store(folder: pathlib.Path) -> None:
  geometry = _geometry()
  rng = np.random.default_rng(0)
  opened = {
      name: arrays.open_array(folder, geometry, name, create=True)
      for name in geometry.kinds
  }
  for index in range(geometry.blocks):
    digests = {}
    for name, array in opened.items():
      shape = geometry.shards, geometry.batches, geometry.rows
      kind = geometry.kinds[name]
      rows = rng.integers(0, 2, (*shape, *kind.shape)).astype(kind.dtype)
      arrays.write(array, rows, step=index * geometry.batches, shard=0).result()
      parts = arrays.digests(rows)
      digests[name] = ''.join(f'{digest:08x}' for digest in parts)
    block = {
        'rows': 16, 'kept': 12, 'dropped': 4, 'digests': digests,
        'block': index,
    }  # fmt: skip
    record.append_block(folder, block)
  record.finish(folder, _facts())


def _read_store(folder: pathlib.Path) -> Any:
  config: Any = types.SimpleNamespace(store=str(folder), blocks=2)
  manifest, geometry, lines = record.read_manifest(folder)
  arrays.check_files(folder, geometry)
  opened = object.__new__(store.Stored)
  # As `Stored.__init__`, without the training config of the store.
  opened._path, opened.manifest = folder, manifest
  opened.geometry, opened._lines = geometry, lines
  opened._slots = geometry.batches * geometry.rows
  opened._shards = [(0, geometry.shards)]
  opened._taps = {manifest['arrays'][_TAP]: lm.parse_tap(_TAP)}
  opened._arrays = {
      name: arrays.open_array(folder, geometry, name) for name in geometry.kinds
  }
  blocks = [opened.read(index) for index in range(config.blocks)]
  return blocks, dict(opened.estimate_scales())


def _store_progress(folder: pathlib.Path) -> None:
  _store(folder)
  record.reopen(folder, _facts())


def _read_progress(folder: pathlib.Path) -> Any:
  progress = record.read_progress(folder)
  return progress, record.drop_unfinished_line(folder)


def _features(folder: pathlib.Path) -> None:
  files = reading.member_files(_MEMBER)
  (folder / files['file']).parent.mkdir(parents=True)
  latents = np.arange(_WIDTH, dtype=np.int32)
  starts = np.arange(_WIDTH + 1) * 2
  values = np.linspace(0, 1, 2 * _WIDTH).astype(np.float32)
  arrow.write(
      folder / files['file'],
      {'latent': latents, 'top': arrow.lists(starts, values)},
  )
  arrow.write(folder / files['text_firings'], {'text': latents})
  arrow.write(folder / reading.TEXTS, {'text': latents, 'offset': latents})
  arrow.write(
      folder / reading.VOCABULARY,
      {'token': latents, 'piece': list('abcdefgh'), 'count': latents},
  )
  manifest = {
      **formats.stamp(formats.Kind.FEATURES),
      'model': 'gemma2_nano', 'positions': 64, 'tokens': 48, 'documents': 3,
      'vocabulary': reading.VOCABULARY, 'texts': reading.TEXTS,
      'members': [{'path': _MEMBER, 'width': _WIDTH, 'sha256': '0', **files}],
  }  # fmt: skip
  json_files.write_json(folder / reading.MANIFEST, manifest)
  explained = folder / reading.EXPLANATIONS / 'rules'
  (explained / files['file']).parent.mkdir(parents=True)
  arrow.write(explained / files['file'], {'latent': latents})
  json_files.write_json(
      explained / reading.MANIFEST,
      {**formats.stamp(formats.Kind.EXPLANATIONS), 'complete': True},
  )


def _read_features(folder: pathlib.Path) -> Any:
  return [
      reading.read_latents(folder, _MEMBER, latents=[1, 2]),
      reading.read_explanation_sets(folder),
      feature_exports.read_pieces(folder),
  ]


def _answers(folder: pathlib.Path) -> None:
  for number in range(4):
    json_files.append_line(
        folder / 'answers.jsonl', {'id': str(number), 'text': 'a latent'}
    )


def _read_answers(folder: pathlib.Path) -> Any:
  return llm.read_answers(folder / 'answers.jsonl')
