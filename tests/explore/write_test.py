"""Pages are complete files or folders, and replace only earlier pages."""

import base64
import gzip
import re

import pytest

from jumprelu import errors
from jumprelu.explore import write
from tests.explore.conftest import read_page


def test_a_page_is_the_same_each_time(page_data, page_file, tmp_path):
  written = write.write_file(page_data, tmp_path / 'new' / 'page.html')
  assert written.path.read_bytes() == page_file.read_bytes()
  assert written.size == page_file.stat().st_size
  assert [p.name for p in written.path.parent.iterdir()] == ['page.html']


def test_a_folder_has_the_containers_of_the_file(page_data, page, tmp_path):
  written = write.write_folder(page_data, tmp_path / 'page')
  index, arrays = read_page(written.path.read_text('utf-8'))
  assert index == page[0] | {'blobs': 'files'} and not arrays
  files = sorted((tmp_path / 'page' / 'data').rglob('*.js'))
  names = [str(f.relative_to(tmp_path / 'page' / 'data'))[:-3] for f in files]
  assert sorted(names) == sorted(page[1])
  for name, file in zip(names, files, strict=True):
    text = file.read_text()
    match = re.fullmatch(r'__jumprelu_blob\("(.+?)","([\w+/=]*)"\);\n', text)
    assert match[1] == name
    gzip.decompress(base64.b64decode(match[2]))
  assert write.is_page(tmp_path / 'page')
  assert written.size == sum(f.stat().st_size for f in [written.path, *files])


def test_an_earlier_page_is_replaced(page_data, tmp_path):
  write.write_folder(page_data, tmp_path / 'page')
  write.check_out(tmp_path / 'page', as_file=False)
  write.write_folder(page_data, tmp_path / 'page')
  assert write.is_page(tmp_path / 'page')


def test_other_files_are_never_replaced(tmp_path):
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'notes' / 'a.txt').write_text('text')
  (tmp_path / 'file').write_text('text')
  for name in ('notes', 'file'):
    with pytest.raises(errors.UserError, match='choose another folder'):
      write.check_out(tmp_path / name, as_file=False)
  with pytest.raises(errors.UserError, match='a folder'):
    write.check_out(tmp_path / 'notes', as_file=True)
