"""Activations of a user's token ids, at any taps, in one npz file.

The activations are in float32. They serve small experiments, and tests of other
tools against this package. Each row of token ids is one document with positions
0, 1, ..., in which no token attends to PAD.
"""

from collections.abc import Iterator, Mapping, Sequence
import os
import pathlib
import shutil
import tempfile
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.files import disk, npz, progress_line

LOGITS = 'logits'


def read_token_ids(
    path: str | os.PathLike[str], *, config: lm.LmConfig
) -> np.ndarray:
  """Returns the token ids in a npy file, [sequences, positions].

  Raises:
    MissingInputError: the file does not exist.
    DataError: the file holds no such array, or ids outside the vocabulary.
  """
  ids = npz.read_npy(path, ndim=2, kinds='iu')
  if not ids.size:
    raise errors.DataError(f'{path}: holds no token ids (shape {ids.shape})')
  low, high = int(ids.min()), int(ids.max())
  if low < 0 or high >= config.vocab:
    raise errors.DataError(
        f'{path}: token id {low if low < 0 else high} is not in the vocabulary'
        f' of {config.name}, 0 to {config.vocab - 1}'
    )
  return ids.astype(np.int32)


def harvest(
    model: lm.LanguageModel,
    token_ids: np.ndarray,
    out: str | os.PathLike[str],
    *,
    taps: Mapping[str, lm.Tap],
    logits: bool = False,
    batch: int = 8,
    extra: Mapping[str, np.ndarray] | None = None,
):
  """Writes the activations of `token_ids` at `taps` to `out`.

  Batches are written to temporary files next to `out`, so that only one batch
  is in memory. `out` appears when it is complete.

  Args:
    model: The language model.
    token_ids: [sequences, positions].
    out: The npz file to write.
    taps: {name of an array: its tap}. Each array is [sequences, positions,
      width] in float32.
    logits: Whether to store the logits too, as the array `logits`.
    batch: The number of sequences in one forward pass.
    extra: Further arrays to store, by name.

  Raises:
    UserError: the disk has too little free space.
  """
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  widths = {n: model.config.d_site(tap.site) for n, tap in taps.items()}
  if logits:
    widths[LOGITS] = model.config.vocab
  _check_space(out, 4 * token_ids.size * sum(widths.values()))
  with tempfile.TemporaryDirectory(
      prefix=f'.{out.name}.', dir=out.parent
  ) as scratch:
    folder = pathlib.Path(scratch)
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f'{name}.npy',
            mode='w+',
            dtype=np.float32,
            shape=(*token_ids.shape, width),
        )
        for name, width in widths.items()
    }
    for name, value in (extra or {}).items():
      np.save(folder / f'{name}.npy', value)
    forward = _make_forward(model, taps, logits=logits)
    pad = lm.family_of(model.config).special_ids.pad
    for start, values in _batches(forward, token_ids, batch, pad=pad):
      for name, value in values.items():
        arrays[name][start : start + batch] = value
    for array in arrays.values():
      array.flush()
    _zip(folder, [*arrays, *(extra or {})], folder / 'whole')
    (folder / 'whole').replace(out)


def _make_forward(
    model: lm.LanguageModel, taps: Mapping[str, lm.Tap], *, logits: bool
):
  # Float32 weights need this precision, because accelerators compute float32
  # products in fewer bits by default.
  full = jax.tree.leaves(model.params)[0].dtype == jnp.float32
  precision = 'float32' if full else None
  pad = lm.family_of(model.config).special_ids.pad

  @jax.jit
  def forward(params, tokens):
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    layout = {
        'positions': jnp.broadcast_to(positions, tokens.shape),
        'segments': (tokens != pad).astype(jnp.int32),
    }
    with jax.default_matmul_precision(precision):
      values: dict[str, Any] = {}
      if taps:
        read = lm.activations(
            model, params, tokens, taps=tuple(taps.values()), **layout
        )
        values |= {name: read[tap] for name, tap in taps.items()}
      if logits:
        values[LOGITS] = lm.logits(model, params, tokens, **layout)
    return {k: v.astype(jnp.float32) for k, v in values.items()}

  return lambda tokens: forward(model.params, tokens)


def _batches(
    forward, token_ids: np.ndarray, batch: int, *, pad: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Yields the first row and the values of each batch.

  The last batch is padded for the forward pass, but not in the values.
  """
  starts = range(0, len(token_ids), batch)
  progress = progress_line.ProgressLine('harvest', len(starts))
  for start in progress.over(starts):
    rows = token_ids[start : start + batch]
    padded = np.full((batch, token_ids.shape[1]), pad, np.int32)
    padded[: len(rows)] = rows
    values = jax.device_get(forward(jnp.asarray(padded)))
    yield start, {k: v[: len(rows)] for k, v in values.items()}


def _check_space(out: pathlib.Path, size: int):
  # Twice the size, because the arrays and the npz file exist together.
  disk.require(
      out.parent, 2 * size, what=out.name, cure='or name fewer --sites'
  )


def _zip(folder: pathlib.Path, names: Sequence[str], out: pathlib.Path):
  with zipfile.ZipFile(out, 'w', allowZip64=True) as archive:
    for name in names:
      source = folder / f'{name}.npy'
      with (
          archive.open(f'{name}.npy', 'w', force_zip64=True) as target,
          open(source, 'rb') as f,
      ):
        shutil.copyfileobj(f, target, 2**24)
      source.unlink()
