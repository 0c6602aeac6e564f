"""File and folder names of a release, after those of Gemma Scope.

    SITE/layer_L/width_W/average_l0_N/params.npz           JumpReLU
    variants/VARIANT/SITE/layer_L/width_W/average_l0_N/... any other variant

N is the L0 measured on held-out tokens, as in Gemma Scope (arXiv:2408.05147,
section 4), and not a hyper-parameter.
"""

from collections.abc import Sequence
import math
import re

from jumprelu import errors

# Files of a member.
PARAMS = 'params.npz'
CONFIG = 'config.json'
RESULTS = 'results.json'
TEST_VECTORS = 'test_vectors.npz'
FIRING_FREQUENCY = 'firing_frequency.npy'
REQUIRED_FILES = (PARAMS, CONFIG, RESULTS, TEST_VECTORS)
MEMBER_FILES = (*REQUIRED_FILES, FIRING_FREQUENCY)

# Files of the whole release.
SUITE = 'suite.json'
ALL_RESULTS = 'results.jsonl'
ALL_RESULTS_PARQUET = 'results.parquet'
CARD = 'README.md'
FRONTIER = 'frontier.png'

_NAME = re.compile(r'[a-z0-9][a-z0-9._-]{0,40}')
_SUFFIX = re.compile(r'(_target_\d+(\.\d+)?)?(_([2-9]|[1-9]\d+))?')
_MIN_SHORT_WIDTH = 1024
_MILLION = 2**20


def width_name(width: int) -> str:
  """Returns the name of a width in folders.

  Powers of two from 1024 are abbreviated as in Gemma Scope: 16k for 16384, 1m
  for 1048576. Other widths are written as they are.
  """
  if width < 1:
    raise ValueError(f'width {width} is not positive')
  if width < _MIN_SHORT_WIDTH or width & (width - 1):
    return str(width)
  return '1m' if width == _MILLION else f'{width // 1000}k'


def l0_name(l0: float) -> int:
  """Returns a measured L0 rounded half up, at least 1."""
  if not math.isfinite(l0) or l0 < 0:
    raise ValueError(f'average L0 {l0} is negative or not finite')
  return max(1, math.floor(l0 + 0.5))


def member_folder(
    *, variant: str, site: str, layer: int, width: int, l0: float
) -> str:
  """Returns the folder of a member, which other members may share.

  `resolve_collisions` makes the folders of a release unique.
  """
  if not _NAME.fullmatch(site):
    raise ValueError(f'site {site!r} is not a valid folder name')
  path = (
      f'{site}/layer_{layer}/width_{width_name(width)}'
      f'/average_l0_{l0_name(l0)}'
  )
  return path if variant == 'jumprelu' else f'variants/{variant}/{path}'


def with_targets(folders: Sequence[str], targets: Sequence[float]) -> list[str]:
  """Returns the folders, with the target L0 as a suffix of equal ones.

  Equal folders whose targets are equal, or 0 because they have none, are not
  changed.

  Args:
    folders: One folder per member.
    targets: The target L0 of each member.
  """
  several: dict[str, set[float]] = {}
  for folder, target in zip(folders, targets, strict=True):
    several.setdefault(folder, set()).add(target)
  return [
      f'{folder}_target_{target:g}'
      if target and len(several[folder]) > 1
      else folder
      for folder, target in zip(folders, targets, strict=True)
  ]


def resolve_collisions(
    folders: Sequence[str], order: Sequence[tuple]
) -> list[str]:
  """Returns unique folders: all but the first of equal ones get _2, _3, ...

  Args:
    folders: One folder per member.
    order: One sort key per member, by which equal folders are numbered.
  """
  seen: dict[str, int] = {}
  resolved = [''] * len(folders)
  for i in sorted(range(len(folders)), key=lambda i: (order[i], i)):
    count = seen[folders[i]] = seen.get(folders[i], 0) + 1
    resolved[i] = folders[i] if count == 1 else f'{folders[i]}_{count}'
  return resolved


def is_folder_of(path: str, folder: str) -> bool:
  """Returns whether `path` is `folder`, with or without its suffixes.

  They are `_target_L0` and `_2`, `_3`, ... of members with equal folders.
  """
  suffix = path.removeprefix(folder)
  return path.startswith(folder) and _SUFFIX.fullmatch(suffix) is not None


def check_relative(path: str) -> str:
  """Returns `path` if all its parts are valid names of a release.

  Raises:
    DataError: a part is invalid, such as `..`, which could leave the release.
  """
  parts = path.split('/')
  if not parts or not all(_NAME.fullmatch(p) or p == CARD for p in parts):
    raise errors.DataError(f'{SUITE}: unsafe path {path!r}')
  return path
