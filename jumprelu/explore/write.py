"""Writes a page as one file, or as a folder whose parts load on demand."""

from collections.abc import Iterator
import dataclasses
import pathlib
import shutil

from jumprelu import errors
from jumprelu.explore import container, html_page, page_data
from jumprelu.files import progress_line

# Browsers need seconds to open a larger file.
LARGE_BYTES = 25 * 2**20
DATA = 'data'


@dataclasses.dataclass(frozen=True)
class Written:
  """A page on the disk.

  Attributes:
    path: The file to open.
    size: The bytes of all files.
  """

  path: pathlib.Path
  size: int


def write_file(page: page_data.PageData, path: pathlib.Path) -> Written:
  """Writes the page as one file, which appears when it is complete."""
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(path.name + '.partial')
  with draft.open('w', encoding='utf-8', newline='\n') as file:
    file.write(html_page.head(page.index, policy_text=html_page.policy()))
    for name, part in _with_progress(page):
      file.write(html_page.blob_element(name, container.encode(part)))
    file.write(html_page.end())
  draft.rename(path)
  return Written(path, path.stat().st_size)


def write_folder(page: page_data.PageData, folder: pathlib.Path) -> Written:
  """Writes index.html and a script for each container.

  An earlier page in the folder is replaced. The scripts are classic ones,
  because browsers refuse modules and requests of pages from the disk.
  """
  draft = folder.with_name(folder.name + '.partial')
  shutil.rmtree(draft, ignore_errors=True)
  draft.mkdir(parents=True)
  size = 0
  for name, part in _with_progress(page):
    file = draft / DATA / f'{name}.js'
    file.parent.mkdir(parents=True, exist_ok=True)
    size += file.write_text(html_page.blob_script(name, container.encode(part)))
  index = page.index | {'blobs': 'files'}
  text = html_page.head(
      index, policy_text=html_page.policy(files="'self' file:")
  )
  (draft / 'index.html').write_text(text + html_page.end(), 'utf-8')
  size += (draft / 'index.html').stat().st_size
  if is_page(folder):
    shutil.rmtree(folder)
  elif folder.exists():
    folder.rmdir()
  draft.rename(folder)
  return Written(folder / 'index.html', size)


def _with_progress(page: page_data.PageData) -> Iterator[tuple[str, bytes]]:
  progress = progress_line.ProgressLine('explore: page', len(page.names))
  return progress.over(page.containers())


def check_out(out: pathlib.Path, *, as_file: bool) -> None:
  """Refuses an output path that holds something other than an earlier page.

  Raises:
    UserError: The path is a folder instead of a file, or the reverse, or a
      folder with other files.
  """
  if as_file and out.is_dir():
    raise errors.UserError(f'--out={out}: a folder; choose a file name')
  if as_file or not out.exists():
    return
  if not out.is_dir() or (any(out.iterdir()) and not is_page(out)):
    raise errors.UserError(
        f'--out={out}: exists and is not a page; choose another folder, or a'
        ' name that ends in .html for a file'
    )


def is_page(folder: pathlib.Path) -> bool:
  """Returns whether a folder holds a page and nothing else."""
  if not folder.is_dir():
    return False
  return {p.name for p in folder.iterdir()} == {'index.html', DATA}
