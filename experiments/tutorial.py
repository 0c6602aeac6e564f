"""Runs docs/tutorial.ipynb on the demo's release and stores its outputs.

  jumprelu demo
  python -m experiments.tutorial

Needs nbclient and ipykernel, which the extra `test` installs.
"""

import pathlib
import sys

PATH = (
    pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'tutorial.ipynb'
)
_TIMEOUT = 600  # Seconds for each cell.


def execute(folder: pathlib.Path, replace: dict[str, str] | None = None):
  """Returns the notebook, executed in `folder`.

  Args:
    folder: The working directory; it holds jumprelu_demo/release.
    replace: Texts of code cells, with their replacements.

  Raises:
    nbclient.exceptions.CellExecutionError: A cell failed.
  """
  import nbclient
  import nbformat

  notebook = nbformat.read(PATH, as_version=4)
  for old, new in (replace or {}).items():
    cells = [c for c in notebook.cells if old in c.source]
    if not cells:
      raise ValueError(f'{PATH}: no cell with {old!r}')
    for cell in cells:
      cell.source = cell.source.replace(old, new)
  client = nbclient.NotebookClient(
      notebook,
      timeout=_TIMEOUT,
      kernel_name='python3',
      resources={'metadata': {'path': str(folder)}},
  )
  client.execute()
  # The stored file has no times, versions or progress lines.
  for cell in notebook.cells:
    cell.metadata.pop('execution', None)
    if cell.cell_type == 'code':
      cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
  notebook.metadata.pop('language_info', None)
  return notebook


def main() -> None:
  """Executes the notebook in the working directory."""
  import nbformat

  folder = pathlib.Path.cwd()
  if not (folder / 'jumprelu_demo' / 'release').is_dir():
    sys.exit('no jumprelu_demo/release here: run `jumprelu demo` first')
  nbformat.write(execute(folder), PATH)
  print(PATH)


if __name__ == '__main__':
  main()
