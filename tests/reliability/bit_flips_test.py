"""A flipped bit in any file is refused, or has no effect on results."""

import fnmatch
import pathlib

import jax
import numpy as np
import pytest

from jumprelu import errors
from jumprelu.data import cache, cache_writer
from jumprelu.evals import evaluate, stored
from jumprelu.features import arrow, reading
from jumprelu.files import json_files
from jumprelu.release import members, verify
from jumprelu.training import run_dir
from tests import small_release, small_store, toy_run, toy_suite
from tests.reliability import file_classes

pytestmark = pytest.mark.slow

_KEY = {'step': 13}


def _leaves(tree):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def _make_run(path):
  toy_run.run(path, **{'checkpoint.keep': 1})
  made = evaluate.Evaluation(
      [{'l0': 3.0, 'site': 'mlp_out'}],
      [np.linspace(0, 1, 24, dtype=np.float32)],
      {'positions': [{'path': 'a', 'position': 1}]},
  )
  stored.write(made, path / 'evaluation', _KEY)


def _read_run(path):
  """Resumes the run, as far as its first step, and reads its evaluation."""
  config = toy_suite.make_config(**{'checkpoint.keep': 1})
  directory = run_dir.RunDir(path)
  with directory.claim(config):
    directory.is_done(13)
    directory.note_start(13)
    directory.truncate_metrics(13)
  state, meta = toy_run.state(path, config)
  evaluation = stored.read(path / 'evaluation', _KEY)
  suite = directory.read_suite()
  return (
      _leaves(state),
      meta['scales'],
      meta['counts']['step'],
      suite['scales'],
      # An evaluation that is not found is computed again.
      evaluation and (evaluation.rows, _leaves(evaluation.firing_frequency)),
  )


def _make_release(path):
  small_release.write(path)


def _read_release(path):
  verify.verify_release(path)
  return [
      (repr(sae), _leaves(params), config['input_scale'])
      for sae, params, config in (
          members.read_member(path / name)
          for name in members.list_members(path)
      )
  ]


def _read_store(path):
  opened = small_store.open_store(path)
  scales = opened.estimate_scales()
  blocks = [opened.make_block(i, scales) for i in range(opened.geometry.blocks)]
  return (
      [_leaves(block.activations) + _leaves(block.keep) for block in blocks],
      scales.to_json(),
  )


def _documents(skip):
  for i in range(skip, 40):
    ids = list(range(3 * i + 10, 3 * i + 20))
    yield cache_writer.Encoded(i % 4 == 0, ids, 30)


def _make_cache(path):
  cache_writer.write_caches(
      path,
      _documents,
      sequence_length=8,
      vocab_size=5000,
      record={'user_prefix': [1, 2]},
      rows_per_shard=16,
  )


def _read_cache(path):
  opened = [cache.TokenCache(path / split) for split in cache_writer.SPLITS]
  return [
      (x.tokens_at(range(len(x))).tobytes(), x.user_prefix, x.digest)
      for x in opened
  ]


def _make_features(path):
  columns = {'token': np.arange(99), 'count': np.arange(99) ** 2}
  arrow.write(path / 'vocabulary.parquet', columns)
  manifest = {'vocabulary': 'vocabulary.parquet', 'members': [], 'tokens': 99}
  json_files.write_json(path / 'manifest.json', manifest, seal=True)


def _read_features(path):
  table = reading.read_vocabulary(path)
  return table.to_pylist(), reading.read_manifest(path)['tokens']


_KINDS = {
    'run': (_make_run, _read_run),
    'release': (_make_release, _read_release),
    'store': (small_store.write, _read_store),
    'cache': (_make_cache, _read_cache),
    'features': (_make_features, _read_features),
}


def _row_of(kind, name):
  rows = file_classes.FILES[kind]
  return next(row for row in rows if fnmatch.fnmatch(name, row.pattern))


def _outcomes(path, root, read, expected):
  """Flips bits of a file; returns the errors, with None for equal results."""
  sound, outcomes = path.read_bytes(), []
  size = 8 * len(sound)
  wanted = (0, size // 5, size // 2 + 3, 4 * size // 5 + 6, size - 1)
  for bit in sorted({min(bit, size - 1) for bit in wanted}):
    data = bytearray(sound)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    try:
      assert read(root) == expected, f'{path}: bit {bit} changes a result'
      outcomes.append(None)
    except errors.UserError as error:
      outcomes.append(str(error))
    finally:
      path.write_bytes(sound)
  return outcomes


@pytest.mark.parametrize('kind', _KINDS)
def test_each_file_has_the_outcome_of_its_class(tmp_path, kind):
  make, read = _KINDS[kind]
  root = tmp_path / kind
  make(root)
  # Reading a run writes its advisory files.
  expected = read(root)
  assert read(root) == expected
  seen = set()
  for path in sorted(p for p in root.rglob('*') if p.is_file()):
    name = path.relative_to(root).as_posix()
    row = _row_of(kind, name)
    seen.add(row)
    if row.kind == file_classes.FOREIGN or not path.stat().st_size:
      continue
    outcomes = _outcomes(path, root, read, expected)
    if row.kind == file_classes.ADVISORY:
      assert outcomes == [None] * len(outcomes), name
      continue
    messages = [x for x in outcomes if x is not None]
    assert messages or _is_unread(name), name
    for message in messages:
      assert '\n' not in message
      assert _place(root, name) in message, (name, message)
  assert {row.pattern for row in seen} >= {
      row.pattern
      for row in file_classes.FILES[kind]
      # Only written on request.
      if not row.pattern.startswith(('tensorboard/', 'profile/'))
  }


def _is_unread(name):
  """Returns whether orbax writes a file without need for it."""
  return name.endswith('ocdbt.process_0/manifest.ocdbt')


def _place(root, name):
  """Returns the part of a path that a message must have."""
  path = pathlib.PurePosixPath(name)
  if path.parts[0] == 'checkpoints':
    return str(root / 'checkpoints')
  if name.endswith(('.array_record', '.json', '.jsonl')) or '/c/' not in name:
    return path.name if root.name != 'run' else str(root)
  return path.parts[0]
