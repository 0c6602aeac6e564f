"""Unfinished runs and members that skipped steps: refused, or marked."""

import numpy as np
import pytest

from jumprelu import errors
from jumprelu.evals import evaluate, results
from jumprelu.release import formats, members, publish
from jumprelu.training import config
from tests import small_release
from tests.release import publish_test


def release_at(
    step,
    out,
    monkeypatch,
    *,
    total=512,
    skipped=0,
    frozen=False,
    **options,
):
  """Releases a run of `total` steps that stopped at `step`."""
  run = publish_test.make_run(input_gain=True)
  meta = {'counts': {'step': step, 'tokens_trained': 100 * step}}
  batch = run.config.stream.batch
  run = run._replace(
      config=config.resolve(
          {'layer': publish_test.LAYER, 'tokens': total * batch}
      ),
      members=[
          run.members[0]._replace(meta=meta),
          run.members[1]._replace(
              meta=meta, steps_skipped=skipped, frozen=frozen
          ),
      ],
  )
  assert run.config.steps == total
  monkeypatch.setattr(
      publish,
      'provenance',
      lambda *args: small_release.provenance(layer=publish_test.LAYER),
  )
  rows = [
      {**small_release.make_member().results, 'l0': 3.0, 'site': m.member.site}
      for m in run.members
  ]
  frequency = [np.full(24, 0.125, np.float32)] * 2
  evaluation = evaluate.Evaluation(rows, frequency)
  return publish.release_run(run, evaluation, out, **options)


def test_an_unfinished_run_is_released_only_with_the_flag(
    tmp_path, monkeypatch
):
  out = tmp_path / 'release'
  with pytest.raises(errors.UserError, match='step 16 of 512.*--unfinished'):
    release_at(16, out, monkeypatch)
  assert not out.exists()
  words = 'stopped at step 16 of 512'
  rows = release_at(16, out, monkeypatch, unfinished=True)
  assert [row['unfinished'] for row in rows] == [words] * 2
  assert words in (out / 'README.md').read_text()
  assert (out / 'results.jsonl').read_text().count(words) == 2
  assert words in results.table(rows)
  # Readers of the release receive the note too.
  for path, member in formats.find(out).items():
    assert member.meta['unfinished'] == words
    assert members.load_member(out / path)[2]['unfinished'] == words


def test_a_finished_run_has_no_note(tmp_path, monkeypatch):
  out = tmp_path / 'release'
  rows = release_at(512, out, monkeypatch)
  assert not any('unfinished' in row for row in rows)
  assert 'stopped' not in (out / 'README.md').read_text()
  for member in formats.find(out).values():
    assert 'unfinished' not in member.meta


def test_skipped_steps_are_reported_for_each_member(
    tmp_path, monkeypatch, caplog
):
  out = tmp_path / 'release'
  rows = release_at(512, out, monkeypatch, skipped=12)
  assert [row['steps_skipped'] for row in rows] == [0, 12]
  assert [row['steps'] for row in rows] == [512, 512]
  config = members.load_member(out / rows[1]['path'])[2]
  assert config['steps_skipped'] == 12
  note = f'`{rows[1]["path"]}` skipped 12 of 512 steps (2.3%)'
  assert (out / 'README.md').read_text().count(' skipped ') == 1
  assert note in (out / 'README.md').read_text()
  (warning,) = [r.getMessage() for r in caplog.records]
  assert 'site=transcoder' in warning and '12 of 512 steps' in warning
  assert 'skipped steps' in results.table(rows)


def test_a_frozen_member_is_reported_as_failed(tmp_path, monkeypatch):
  out = tmp_path / 'release'
  rows = release_at(
      512, out, monkeypatch, skipped=300, frozen=True, allow_skipped=True
  )
  note = 'failed after 212 of 512 steps (not finite)'
  assert [row.get('unfinished') for row in rows] == [None, note]
  assert members.load_member(out / rows[1]['path'])[2]['unfinished'] == note
  card = (out / 'README.md').read_text()
  assert f'Training of `{rows[1]["path"]}` is unfinished: {note}.' in card
  assert 'failed after' in results.table(rows)


def test_few_skipped_steps_are_not_reported(tmp_path, monkeypatch, caplog):
  rows = release_at(512, tmp_path / 'release', monkeypatch)
  assert 'skipped steps' not in results.table(rows)
  assert ' skipped ' not in (tmp_path / 'release/README.md').read_text()
  assert not caplog.records


def test_a_member_that_skipped_many_steps_needs_the_flag(tmp_path, monkeypatch):
  out = tmp_path / 'release'
  words = 'site=transcoder.* skipped 300 of 512 steps.*--allow_skipped'
  with pytest.raises(errors.UserError, match=words):
    release_at(512, out, monkeypatch, skipped=300)
  assert not out.exists()
  rows = release_at(512, out, monkeypatch, skipped=300, allow_skipped=True)
  assert rows[1]['steps_skipped'] == 300
