"""Texts and models are made once, and digests do not depend on their folder."""

import dataclasses

import pytest

from experiments.nano import made
from experiments.suites import results, scales, suites

_TEXT = made.Made('text', 'words', 100, stands_for='stdlib')


@pytest.fixture
def calls(monkeypatch):
  calls = []

  def write(name, folder, amount):
    calls.append((name, amount))
    (folder / 'text.jsonl').write_text(f'{{"text": "{name}"}}\n')
    if name == 'breaks':
      raise RuntimeError

  monkeypatch.setattr(made, '_makers', lambda: {'text': write})
  return calls


def test_a_text_is_made_once_per_amount(calls, tmp_path):
  first = made.obtain(_TEXT, tmp_path)
  assert made.obtain(_TEXT, tmp_path) == first
  assert (first / 'text.jsonl').is_file()
  more = made.obtain(dataclasses.replace(_TEXT, amount=200), tmp_path)
  assert more != first
  assert calls == [('words', 100), ('words', 200)]


def test_an_interrupted_text_is_made_again(calls, tmp_path):
  text = dataclasses.replace(_TEXT, name='breaks')
  for _ in range(2):
    with pytest.raises(RuntimeError):
      made.obtain(text, tmp_path)
  assert len(calls) == 2


def test_a_resolved_config_has_the_made_folder_or_the_substitute(
    calls, tmp_path
):
  config = {'data': _TEXT, 'layer': 1}
  assert made.resolve(config).data == 'stdlib'
  assert not calls
  resolved = made.resolve(config, tmp_path)
  assert resolved.data == str(made.obtain(_TEXT, tmp_path))
  assert resolved.layer == 1


def _suite(**changes):
  return suites.make(scales.QUICK, 'some', **changes)


def test_digests_include_the_made_text_but_not_its_folder(calls, tmp_path):
  plain, other = _suite(), _suite(data=_TEXT)
  more = _suite(data=dataclasses.replace(_TEXT, amount=200))
  digests = {results.digest(s) for s in (plain, other, more)}
  assert len(digests) == 3
  before = results.digest(other)
  for folder in (tmp_path / 'a', tmp_path / 'b'):
    made.resolve(other.config, folder)
    assert results.digest(other) == before


def test_digests_of_readings_include_every_field_of_the_reading(calls):
  suite = _suite()
  plain = suites.Reading('other', suite, {})
  readings = (
      plain,
      dataclasses.replace(plain, changes={'data': _TEXT}),
      dataclasses.replace(plain, sites=('resid_post',)),
      dataclasses.replace(plain, scales_of=_suite(layer=1)),
      dataclasses.replace(plain, scales_of=_suite(data=_TEXT)),
  )
  assert len({results.digest(reading) for reading in readings}) == 5
