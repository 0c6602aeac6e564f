"""Partial results of an evaluation, from which an interrupted one resumes.

A stage is a pass over text or an optional measure. The sums of a pass are saved
about every half minute, at its end and on a signal; a measure's result is saved
when it is complete. Sums are exact in the file, and batches are added in the
same order, so that a resumed evaluation has the results of a whole one bit for
bit.
"""

from collections.abc import Callable, Mapping
import hashlib
import io
import json
import pathlib
import sys
import tempfile
import time
from typing import Any, TypeVar

import jax
import numpy as np

from jumprelu import errors, extras, processes
from jumprelu.evals import text as text_lib
from jumprelu.files import json_files, npz

_Total = TypeVar('_Total')

# The seconds between two saves, and the largest share of time that they take.
_SECONDS = 30.0
_SHARE = 0.02
_BATCHES = 'batches'


class Partial:
  """The partial results of one evaluation; without a folder, none are saved.

  All processes of a job call each method. Only process 0 writes and reads.
  """

  def __init__(self, folder: Any = None, key: Mapping[str, Any] | None = None):
    """Chooses the folder of an evaluation.

    Args:
      folder: A folder for partial results only, local or remote.
      key: Everything that determines the results, as plain JSON values. Partial
        results with another key are not used.
    """
    self._folder = None
    if folder is None:
      return
    facts = {
        'key': dict(key or {}),
        'jax': jax.__version__,
        # The order of sums depends on them.
        'devices': jax.device_count(),
        'processes': jax.process_count(),
    }
    text = json.dumps(json_files.to_plain(facts), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    self._folder = _path(folder) / name

  def total(
      self,
      stage: str,
      text: text_lib.Text,
      step: Callable[[jax.Array], Any],
      *,
      initial: _Total,
      add: Callable[[_Total, Any], _Total],
  ) -> _Total:
    """Returns the sums of a pass over a text.

    Args:
      stage: The name of the pass.
      text: The text.
      step: Returns the results of a batch of tokens.
      initial: The sums over no batch: a tree of NumPy arrays.
      add: Returns the sums with the results of a batch, which are on the host,
        as a tree of the same arrays.
    """
    done, total = self._load(stage, initial)
    rest = text._replace(rows=text.rows[done * text.sequences :])
    if not len(rest.rows):
      return total
    saved, pause, count = time.monotonic(), _SECONDS, done
    try:
      for result in text_lib.over(rest, step, f'evaluate: {stage}'):
        # In one statement, so that a signal leaves both or neither.
        done, total = done + 1, add(total, result)
        if time.monotonic() - saved > pause:
          start = time.monotonic()
          self._save(stage, done, total)
          saved, count = time.monotonic(), done
          pause = max(_SECONDS, (saved - start) / _SHARE)
    except errors.Interrupted:
      if done > count:
        self._save(stage, done, total)
      raise
    self._save(stage, done, total)
    return total

  def once(self, stage: str, compute: Callable[[], Any]) -> Any:
    """Returns the result of `compute`, which are plain JSON values.

    Args:
      stage: The name of the measure.
      compute: The function, which is not called if its result is saved.
    """
    if self._folder is None:
      return compute()
    path = self._folder / f'{stage}.json'
    text = b''
    if processes.is_main() and path.exists():
      try:
        text = json.dumps(json_files.read_json(path, sealed=True)).encode()
      except (errors.DataError, OSError):
        pass  # It is computed again.
    (size,) = processes.from_main([len(text)])
    if size:
      raw = np.zeros(size, np.uint8)
      if processes.is_main():
        raw = np.frombuffer(text, np.uint8)
      _report(stage, 'is complete', path)
      return json.loads(processes.array_from_main(raw).tobytes())['result']
    result = compute()
    if processes.is_main():
      self._folder.mkdir(parents=True, exist_ok=True)
      json_files.write_json(path, {'result': result}, seal=True)
    return result

  def _file(self, stage: str) -> Any:
    assert self._folder is not None
    return self._folder / f'{stage.replace(" ", "_")}.npz'

  def _save(self, stage: str, done: int, total: Any) -> None:
    if self._folder is None or not processes.is_main():
      return
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(total)]
    arrays: Any = {str(i): leaf for i, leaf in enumerate(leaves)}
    arrays[_BATCHES] = np.int64(done)
    data = io.BytesIO()
    np.savez(data, **arrays)
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._file(stage)
    draft = path.with_name(path.name + '.partial')
    draft.write_bytes(data.getvalue())
    draft.replace(path)

  def _load(self, stage: str, initial: _Total) -> tuple[int, _Total]:
    """Returns the saved number of batches and their sums; else 0, `initial`."""
    if self._folder is None:
      return 0, initial
    leaves, tree = jax.tree.flatten(initial)
    path, done = self._file(stage), 0
    if processes.is_main() and path.exists():
      try:
        done, leaves = _read(path, leaves)
      except (errors.UserError, OSError):
        done = 0  # It is computed again.
    (done,) = processes.from_main([done])
    if not done:
      return 0, initial
    _report(stage, f'resumes at batch {done}', path)
    leaves = [processes.array_from_main(np.asarray(leaf)) for leaf in leaves]
    return done, jax.tree.unflatten(tree, leaves)


NONE = Partial()


def remove(folder: Any) -> None:
  """Removes a folder of partial results, whose evaluation is stored."""
  if processes.is_main() and (path := _path(folder)).exists():
    path.rmtree()


def _path(folder: Any) -> Any:
  """Returns a path, which may be remote."""
  with extras.imports():
    from etils import epath

  return epath.Path(folder)


def _read(path: Any, like: list[Any]) -> tuple[int, list[np.ndarray]]:
  """Returns the number of batches and the arrays of a file.

  Raises:
    DataError: The file is damaged, or has arrays of other shapes or dtypes.
  """
  named = {_BATCHES: np.int64(0)}
  named |= {str(i): np.asarray(leaf) for i, leaf in enumerate(like)}
  # A local copy, because the file may be remote.
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder, path.name)
    copy.write_bytes(path.read_bytes())
    arrays = npz.read_npz(
        copy,
        {name: array.shape for name, array in named.items()},
        dtype={name: str(array.dtype) for name, array in named.items()},
    )
  return int(arrays.pop(_BATCHES)), list(arrays.values())


def _report(stage: str, state: str, path: Any) -> None:
  if processes.is_main():
    print(f'evaluate: {stage} {state} ({path})', file=sys.stderr, flush=True)
