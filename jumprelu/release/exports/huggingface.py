"""Export as a repository of Hugging Face: the release, and a model card.

The folder has all files of the release, so `jumprelu verify` accepts it. Its
card is that of the release, with the metadata by which the Hub links it to the
language model, and with code that downloads an SAE. Nothing is uploaded here.
"""

import os
import pathlib
import re
import shlex
import shutil

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release import layout, members
from jumprelu.release.formats import hooks

NAME = 'huggingface'
DEFAULT_REPOSITORY = 'USER/NAME'
LIBRARY = 'jumprelu'

_REPOSITORY = re.compile(r'[\w.-]+/[\w.-]+')
_FRONT = '---\n'
_SECTION = """\
## Download one

```python
import numpy as np
from huggingface_hub import hf_hub_download

p = np.load(hf_hub_download('{repository}', '{path}/{params}'))
```

The whole release, with the package `jumprelu`:

```python
import jumprelu
from huggingface_hub import snapshot_download

suite = jumprelu.load(snapshot_download('{repository}'))
```

"""
# The section before which the new one is written.
_NEXT = '## Load one\n'


def write(
    root: str | os.PathLike[str], out: pathlib.Path, *, repository: str
) -> list[str]:
  """Copies a release and its card; returns warnings.

  Args:
    root: The release.
    out: The folder to write, which exists and is empty.
    repository: The repository's name, for the code in the card.

  Raises:
    MissingInputError: there is no release.
    UserError: the repository's name is invalid.
  """
  if not _REPOSITORY.fullmatch(repository):
    raise errors.UserError(
        f'--repository={repository}: wanted a name such as'
        f' {DEFAULT_REPOSITORY}'
    )
  root = pathlib.Path(root)
  suite = members.read_suite(root)
  files = [
      f'{member["path"]}/{name}'
      for member in suite['members']
      for name in member['files']
  ]
  for name in [layout.SUITE, *suite['files'], *files]:
    if not (root / name).is_file():
      raise errors.MissingInputError(f'{root / name}: no such file')
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / name, out / name)
  base_model = hooks.public_name(suite['model'])
  card = ''
  if (out / layout.CARD).exists():
    card = (out / layout.CARD).read_text('utf-8')
  json_files.write_text(
      out / layout.CARD,
      _card(card, suite=suite, repository=repository, base_model=base_model),
  )
  if base_model:
    return []
  return [
      f'{suite["model"]} is not on the Hub, so the card names no base_model'
  ]


def upload_command(out: str | os.PathLike[str], *, repository: str) -> str:
  """Returns the command by which the user uploads the folder."""
  return f'hf upload {repository} {shlex.quote(str(out))}'


def _card(
    card: str, *, suite: dict, repository: str, base_model: str | None
) -> str:
  """Returns the release's card with metadata and code for the Hub."""
  metadata = {'library_name': LIBRARY}
  if base_model:
    metadata['base_model'] = f'google/{base_model}'
  front, text = '', card
  if card.startswith(_FRONT) and _FRONT in card[len(_FRONT) :]:
    front, text = card[len(_FRONT) :].split(_FRONT, 1)
  lines = [
      line for line in front.splitlines() if line.split(':')[0] not in metadata
  ]
  lines += [f'{name}: {value}' for name, value in metadata.items()]
  section = _SECTION.format(
      repository=repository,
      path=suite['members'][0]['path'],
      params=layout.PARAMS,
  )
  before, heading, after = text.partition(_NEXT)
  body = before + section + heading + after
  return f'{_FRONT}{chr(10).join(lines)}\n{_FRONT}{body}'
