"""Interrupted evaluations resume with the results of whole ones."""

import collections
import json

import numpy as np
import pytest

from jumprelu import errors, evals
from jumprelu.evals import evaluate, measures, partial
from jumprelu.evals import text as text_lib
from tests import small_evaluation as small
from tests.lm import tiny

KEY = {'members': 3}
MEASURES = ('kl', 'histogram')
# Batches of 2 rows of the 10 held-out and the 20 training rows.
BATCHES = {
    'latents': 5, 'PCA baseline': 10, 'losses': 5, 'kl': 5,
}  # fmt: skip


def _evaluate(where):
  evaluation = evaluate.evaluate_members(
      tiny.model(),
      [small.MEMBERS[name]() for name in ('random', 'heads')],
      held_out=small.HELD_OUT,
      train=small.TRAIN,
      config=evals.Config(
          tokens=10_000, delta_loss_tokens=10_000, lm_sequences=2
      ),
      measures=MEASURES,
      partial=where,
  )
  frequencies = [x.tolist() for x in evaluation.firing_frequency]
  return evaluation.rows, frequencies, dict(evaluation.tables)


@pytest.fixture(scope='module')
def whole():
  return _evaluate(partial.NONE)


@pytest.fixture
def batches(monkeypatch):
  """Returns the numbers of computed batches by stage, and where to stop."""
  counts, stops = collections.Counter(), {}
  over = text_lib.over

  def stopping(text, step, name):
    stage = name.removeprefix('evaluate: ').replace('KL', 'kl')
    for result in over(text, step, name):
      if counts[stage] == stops.get(stage):
        del stops[stage]
        raise errors.Interrupted(errors.EXIT_PREEMPTED)
      counts[stage] += 1
      yield result

  monkeypatch.setattr(text_lib, 'over', stopping)
  return counts, stops


@pytest.mark.parametrize('stage', BATCHES)
@pytest.mark.parametrize('done', [1, 4])
def test_an_interrupted_evaluation_resumes_bit_for_bit(
    tmp_path, whole, batches, stage, done
):
  counts, stops = batches
  stops[stage] = done
  with pytest.raises(errors.Interrupted):
    _evaluate(partial.Partial(tmp_path, KEY))
  assert _evaluate(partial.Partial(tmp_path, KEY)) == whole
  # The batches of a measure are computed again, those of a pass are not.
  repeated = {stage: done if stage in MEASURES else 0}
  assert counts == {
      name: count + repeated.get(name, 0) for name, count in BATCHES.items()
  }


def test_sums_are_saved_now_and_then_for_kills(
    tmp_path, monkeypatch, whole, batches
):
  monkeypatch.setattr(partial, '_SECONDS', 0.0)
  monkeypatch.setattr(partial, '_SHARE', np.inf)
  counts, stops = batches
  stops['losses'] = 3
  # Nothing is saved when the process is killed.
  monkeypatch.setattr(
      errors, 'Interrupted', type('Killed', (BaseException,), {})
  )
  with pytest.raises(BaseException, match='42'):
    _evaluate(partial.Partial(tmp_path, KEY))
  monkeypatch.undo()
  assert _evaluate(partial.Partial(tmp_path, KEY)) == whole
  assert counts['losses'] == 3


def test_another_key_starts_anew(tmp_path, whole, batches):
  counts, _ = batches
  _evaluate(partial.Partial(tmp_path, KEY))
  assert _evaluate(partial.Partial(tmp_path, KEY | {'members': 4})) == whole
  assert counts == {name: 2 * count for name, count in BATCHES.items()}


@pytest.mark.parametrize('name', ['latents.npz', 'losses.npz', 'kl.json'])
@pytest.mark.parametrize('damage', ['flipped', 'cut'])
def test_a_damaged_stage_is_computed_again(
    tmp_path, whole, batches, name, damage
):
  counts, _ = batches
  _evaluate(partial.Partial(tmp_path, KEY))
  (path,) = tmp_path.glob(f'*/{name}')
  data = bytearray(path.read_bytes())
  data[len(data) // 3] ^= 1
  path.write_bytes(data if damage == 'flipped' else data[:-9])
  assert _evaluate(partial.Partial(tmp_path, KEY)) == whole
  again = name.partition('.')[0]
  assert counts == BATCHES | {again: 2 * BATCHES[again]}


def test_results_of_measures_are_plain_json():
  assert set(MEASURES) < set(measures.MEASURES)
  evaluation = evaluate.evaluate_members(
      tiny.model(),
      [small.make_member('resid_post')],
      held_out=small.HELD_OUT,
      measures=MEASURES,
  )
  results = [evaluation.rows, dict(evaluation.tables)]
  assert json.loads(json.dumps(results)) == results


def test_the_folder_is_removed_as_a_whole(tmp_path):
  folder = tmp_path / 'x.partial'
  partial.remove(folder)
  partial.Partial(folder, KEY).once('kl', lambda: {'a': 1.5})
  assert list(folder.glob('*/kl.json'))
  partial.remove(folder)
  assert not folder.exists()
