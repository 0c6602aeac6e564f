"""Stored evaluations are read again, only for the same request."""

import json

import numpy as np
import pytest

from jumprelu.evals import evaluate
from jumprelu.evals import stored as stored_lib

_KEY = {'step': 5, 'held_out': 'abc'}


def _make():
  return evaluate.Evaluation(
      [{'l0': 3.0, 'fvu': None}, {'l0': 4.5, 'fvu': 0.25, 'site': 'mlp_out'}],
      [np.linspace(0, 1, 24, dtype=np.float32), np.ones(8, np.float32)],
      {'positions': [{'path': 'a', 'position': 1}], 'empty': []},
  )


def test_a_stored_evaluation_is_read_back_completely(tmp_path):
  made = _make()
  stored_lib.write(made, tmp_path / 'x', _KEY)
  assert stored_lib.exists(tmp_path / 'x', _KEY)
  read = stored_lib.read(tmp_path / 'x', _KEY)
  assert (read.rows, read.tables) == (made.rows, made.tables)
  for stored, exact in zip(
      read.firing_frequency, made.firing_frequency, strict=True
  ):
    np.testing.assert_array_equal(stored, exact)


def test_another_key_does_not_match(tmp_path):
  assert stored_lib.read(tmp_path / 'x', _KEY) is None
  stored_lib.write(_make(), tmp_path, _KEY)
  for other in ({**_KEY, 'step': 6}, {'step': 5}, {**_KEY, 'more': 1}):
    assert not stored_lib.exists(tmp_path, other)
    assert stored_lib.read(tmp_path, other) is None


def test_an_interrupted_write_leaves_no_readable_evaluation(
    monkeypatch, tmp_path
):
  stored_lib.write(_make(), tmp_path, _KEY)

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(stored_lib.npz, 'write_npz', fail)
  with pytest.raises(OSError, match='disk full'):
    stored_lib.write(_make(), tmp_path, _KEY)
  assert stored_lib.read(tmp_path, _KEY) is None


def test_more_than_ten_members_keep_their_order(tmp_path):
  frequencies = [np.full(4, i / 20, np.float32) for i in range(12)]
  rows = [{'member': i} for i in range(12)]
  made = evaluate.Evaluation(rows, frequencies)
  stored_lib.write(made, tmp_path, _KEY)
  read = stored_lib.read(tmp_path, _KEY)
  np.testing.assert_array_equal(read.firing_frequency, frequencies)
  lines = (tmp_path / 'results.jsonl').read_text().splitlines()
  assert [json.loads(line)['member'] for line in lines] == list(range(12))
