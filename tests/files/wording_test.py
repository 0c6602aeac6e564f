"""Numbers with nouns."""

import pytest

from jumprelu.files import wording


@pytest.mark.parametrize(
    'number, text',
    [
        (0, '0 members'),
        (1, '1 member'),
        (2, '2 members'),
        (2048, '2,048 members'),
    ],
)
def test_a_noun_is_plural_unless_there_is_one(number, text):
  assert wording.count(number, 'member') == text
