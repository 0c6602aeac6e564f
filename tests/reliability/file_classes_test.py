"""The table of files in docs/reliability.md is that of the tests."""

import pathlib
import re

from tests.reliability import file_classes

_ROOT = pathlib.Path(__file__).parents[2]
_PAGE = _ROOT / 'docs' / 'reliability.md'


def test_the_document_has_the_table_of_classes():
  text = _PAGE.read_text('utf-8')
  rows = re.findall(
      r'^\| (\w+) \| `(.*?)` \| (\w+) \| (.*?) \|$', text, re.MULTILINE
  )
  assert rows == [
      (folder, row.pattern, row.kind, row.check)
      for folder, table in file_classes.FILES.items()
      for row in table
  ]


def test_every_promise_names_tests_that_exist():
  text = _PAGE.read_text('utf-8')
  promises = text.partition('## Promises')[2].partition('## ')[0]
  named = re.findall(r'`(tests/[\w/]+\.py)::(test_\w+)`', promises)
  assert len(named) >= 8
  for path, name in named:
    source = (_ROOT / path).read_text('utf-8')
    assert f'def {name}(' in source, f'{path}::{name}'
