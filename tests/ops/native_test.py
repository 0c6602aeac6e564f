"""The library of the native step: the reason why it cannot be used."""

from jumprelu.ops import native


def test_a_missing_library_is_explained_with_both_causes_and_the_cure(
    monkeypatch,
):
  monkeypatch.setattr(native, '_libraries', lambda: [])
  reason = native.why_not.__wrapped__()
  assert 'no C++ compiler' in reason and 'sources changed' in reason
  assert 'install jumprelu again' in reason
