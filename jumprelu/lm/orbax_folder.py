"""Folders in orbax's format, as on Kaggle: flat and nested trees.

They are read with tensorstore, which orbax itself uses, because tensorstore
reads shapes without weights and without a device. The name of a stored tensor
is its path in the tree, with the keys joined by dots. In flat trees, keys
contain slashes:

  flat    transformer/layer_0/attn/q_einsum.w    as released
  nested  layer_0.attn.q_einsum.w                as `gemma` saves its own tree
"""

from collections.abc import Mapping
import pathlib
import re
from typing import Any

import numpy as np

from jumprelu import errors, extras
from jumprelu.files import json_files
from jumprelu.lm import config as config_lib
from jumprelu.lm import families, gemma, weights

# A folder with one of these files is in orbax's format.
_MARKS = ('_METADATA', 'manifest.ocdbt')
# The file that describes an array -> the driver of its zarr version.
_DRIVERS = {'.zarray': 'zarr', 'zarr.json': 'zarr3'}


def recognises(folder: pathlib.Path) -> bool:
  """Returns whether a folder or exactly one of its subfolders is orbax's."""
  return _inner(folder) is not None


def _inner(folder: pathlib.Path) -> pathlib.Path | None:
  """Returns `folder` if it is in orbax's format, else its subfolder that is.

  Returns None if no subfolder or several subfolders are in orbax's format.
  """
  folders = [folder, *sorted(p for p in folder.glob('*') if p.is_dir())]
  marked = [p for p in folders if any((p / mark).is_file() for mark in _MARKS)]
  if folder in marked:
    return folder
  return marked[0] if len(marked) == 1 else None


def read_config(folder: pathlib.Path, name: str) -> config_lib.LmConfig:
  """Returns the config: shapes from the arrays, other fields from the family.

  Only the metadata of the arrays is read, not the weights.

  Raises:
    MissingInputError: if the folder is not in orbax's format.
    DataError: if tensors are missing or damaged, or fit no known family.
  """
  store = _Store(folder)
  family = _recognise(store)

  def shape(key, axes):
    result = store.shape(key)
    if result is None or len(result) != axes:
      raise errors.DataError(
          f'{store.path}: not shaped like {family.title}: tensor {key} is'
          f' {result or "missing"}, wanted {axes} axes'
      )
    return result

  vocab, d_model = shape('embedder/input_embedding', 2)
  heads, head_dim, _ = shape('layer_0/attn/attn_vec_einsum/w', 3)
  ffw, _ = shape('layer_0/mlp/linear', 2)
  gating = shape('layer_0/mlp/gating_einsum', 3)
  kv_heads = heads
  if store.shape('layer_0/attn/qkv_einsum/w') is None:
    kv_heads = shape('layer_0/attn/kv_einsum/w', 4)[1]
  sizes = {
      'vocab': vocab,
      'd_model': d_model,
      'ffw': ffw,
      'heads': heads,
      'kv_heads': kv_heads,
      'head_dim': head_dim,
      'layers': store.layers,
      'transposed_gating': gating[1:] == (ffw, d_model),
  }
  return config_lib.LmConfig(
      name=name,
      family=family.name,
      **sizes,
      **family.orbax.complete(sizes),
  )


def _recognise(store: '_Store') -> families.Family:
  """Returns the first family whose tensors the folder has.

  Raises:
    DataError: if no known family has the folder's tensors.
  """
  keys = set(store.keys)
  for family in families.FAMILIES.values():
    marks = family.orbax
    if keys.issuperset(marks.present) and keys.isdisjoint(marks.absent):
      return family
  titles = ' or '.join(f.title for f in families.FAMILIES.values())
  foreign = {
      key
      for family in families.FAMILIES.values()
      for key in family.orbax.absent
      if key in keys
  }
  raise errors.DataError(
      f'{store.path}: not shaped like {titles}: it holds'
      f' {", ".join(sorted(foreign)) or "none of their tensors"}'
  )


class Weights:
  """A `weights.Reader` of a folder in orbax's format."""

  def __init__(self, folder: pathlib.Path, config: config_lib.LmConfig):
    self._config = config
    self._store = _Store(folder)

  def check(self, shapes: Mapping[str, weights.Shape]) -> None:
    """See `weights.Reader`; also raises for tensors unknown in the family."""
    known = weights.flatten(gemma.param_shapes(self._config))
    title = families.family_of(self._config).title
    unread = families.family_of(self._config).orbax.unread
    for key in self._store.keys:
      if key not in known and not key.startswith(unread):
        raise errors.DataError(
            f'{self._store.path}: tensor {key}, shape {self._store.shape(key)},'
            f' is unknown in a {title} of {self._config.layers} layers'
        )
    for key, wanted in shapes.items():
      shape = self._store.shape(key)
      weights.check_shape(self._store.path, key, actual=shape, wanted=wanted)

  def tensor(self, key: str) -> np.ndarray:
    """See `weights.Reader`."""
    return self._store.read(key)


def _canonical(name: str) -> str:
  """Returns our name of a stored tensor: 'layer_0/attn/q_einsum/w'."""
  key = name.replace('.', '/').removeprefix('params/')
  # The prefix of post-trained models.
  key = key.removeprefix('rlx_networks/policy_network/')
  key = key.removeprefix('transformer/')
  # The flat tree stores each MLP array as the leaf `w` of a module.
  return re.sub(r'^(layer_\d+/mlp/\w+)/w$', r'\1', key)


class _Store:
  """The arrays of an orbax folder, under our names."""

  def __init__(self, folder: pathlib.Path):
    inner = _inner(folder)
    if inner is None:
      raise errors.MissingInputError(
          f'{folder}: neither this folder nor exactly one of its subfolders'
          " has orbax's arrays; use the folder of one checkpoint"
      )
    self.path = inner.resolve()
    metadata = self._metadata()
    self._zeros_are_stored = metadata.get(
        'store_array_data_equal_to_fill_value', False
    )
    root = f'{self.path}/'
    self._base = (
        {'driver': 'ocdbt', 'base': f'file://{root}'}
        if (self.path / 'manifest.ocdbt').is_file()
        else {'driver': 'file', 'path': root}
    )
    self._specs = {}
    for entry in self._list():
      stored, _, last = entry.rpartition('/')
      if stored and last in _DRIVERS:
        self._specs[_canonical(stored)] = (stored, _DRIVERS[last])
    self._open = {}

  @property
  def keys(self) -> list[str]:
    """The names of all tensors, sorted."""
    return sorted(self._specs)

  @property
  def layers(self) -> int:
    """The number of layers."""
    matches = (re.match(r'layer_(\d+)/', key) for key in self._specs)
    return 1 + max((int(m[1]) for m in matches if m), default=-1)

  def shape(self, key: str) -> weights.Shape | None:
    """Returns a tensor's shape, or None if the tensor does not exist."""
    if key not in self._specs:
      return None
    return tuple(self._array(key).shape)

  def read(self, key: str) -> np.ndarray:
    """Returns a whole tensor."""
    try:
      return self._array(key).read().result()
    except (ValueError, OSError) as error:
      raise self._damaged(key, error) from None

  def _metadata(self) -> dict[str, Any]:
    path = self.path / '_METADATA'
    return json_files.read_json(path, cure='fetch it again', missing_ok=True)

  def _list(self) -> list[str]:
    with extras.imports():
      import tensorstore

    try:
      store = tensorstore.KvStore.open(self._base).result()
      return [key.decode() for key in store.list().result()]
    except (ValueError, OSError) as error:
      raise errors.DataError(
          f'{self.path}: not readable: {_message(error)}; fetch it again'
      ) from None

  def _array(self, key: str):
    with extras.imports():
      import tensorstore

    if key in self._open:
      return self._open[key]
    stored, driver = self._specs[key]
    base = dict(self._base)
    base['path'] = base.get('path', '') + stored + '/'
    spec = {'driver': driver, 'kvstore': base}
    if self._zeros_are_stored:
      # Chunks of zeros are written too, so a missing chunk was lost. Without
      # this setting, a missing chunk would be read as zeros.
      spec['fill_missing_data_reads'] = False
    try:
      self._open[key] = tensorstore.open(spec, open=True, read=True).result()
    except (ValueError, OSError) as error:
      raise self._damaged(key, error) from None
    return self._open[key]

  def _damaged(self, key: str, error: Exception) -> errors.DataError:
    return errors.DataError(
        f'{self.path}: tensor {key} is not readable: {_message(error)};'
        ' fetch it again'
    )


def _message(error: Exception) -> str:
  """Returns the error's message without tensorstore's source locations."""
  return str(error).split(' [')[0]
