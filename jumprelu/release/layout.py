"""Where a release keeps what: folder names as in Gemma Scope.

    SITE/layer_L/width_W/average_l0_N/params.npz           JumpReLU
    variants/VARIANT/SITE/layer_L/width_W/average_l0_N/... any other variant

N is the L0 measured on held-out tokens, not a hyper-parameter (Gemma Scope,
arXiv:2408.05147, section 4). Files of a member and of the whole are below.
"""

from collections.abc import Sequence
import math
import re

from jumprelu import errors

PARAMS = 'params.npz'
CONFIG = 'config.json'
RESULTS = 'results.json'
TEST_VECTORS = 'test_vectors.npz'
FIRING_FREQUENCY = 'firing_frequency.npy'
REQUIRED_FILES = (PARAMS, CONFIG, RESULTS, TEST_VECTORS)
MEMBER_FILES = (*REQUIRED_FILES, FIRING_FREQUENCY)

SUITE = 'suite.json'
ALL_RESULTS = 'results.jsonl'
ALL_RESULTS_PARQUET = 'results.parquet'
CARD = 'README.md'

_NAME = re.compile(r'[a-z0-9][a-z0-9._-]{0,40}')
_MIN_SHORT_WIDTH = 1024
_MILLION = 2**20


def width_name(width: int) -> str:
  """Return Gemma Scope's name of a width: 16384 -> 16k, 1048576 -> 1m."""
  if width < 1:
    raise ValueError(f'width {width} is not positive')
  if width < _MIN_SHORT_WIDTH or width & (width - 1):
    return str(width)
  return '1m' if width == _MILLION else f'{width // 1000}k'


def l0_name(l0: float) -> int:
  """Round a measured L0 half up, to at least 1."""
  if not math.isfinite(l0) or l0 < 0:
    raise ValueError(f'average L0 {l0} is not a count')
  return max(1, math.floor(l0 + 0.5))


def member_folder(
    *, variant: str, site: str, layer: int, width: int, l0: float
) -> str:
  """Returns a member's folder, relative to the release, before collisions."""
  if not _NAME.fullmatch(site):
    raise ValueError(f'site {site!r} is no name of a folder')
  path = (
      f'{site}/layer_{layer}/width_{width_name(width)}'
      f'/average_l0_{l0_name(l0)}'
  )
  return path if variant == 'jumprelu' else f'variants/{variant}/{path}'


def resolve_collisions(
    folders: Sequence[str], order: Sequence[tuple]
) -> list[str]:
  """Give the k-th member of one folder, by `order`, the suffix `_k`, k > 1."""
  seen: dict[str, int] = {}
  resolved = [''] * len(folders)
  for i in sorted(range(len(folders)), key=lambda i: (order[i], i)):
    count = seen[folders[i]] = seen.get(folders[i], 0) + 1
    resolved[i] = folders[i] if count == 1 else f'{folders[i]}_{count}'
  return resolved


def is_folder_of(path: str, folder: str) -> bool:
  """Tell whether `path` is `folder`, or `folder` with a collision's suffix."""
  suffix = path.removeprefix(folder)
  return path.startswith(folder) and (
      not suffix or re.fullmatch(r'_([2-9]|[1-9]\d+)', suffix) is not None
  )


def check_relative(path: str) -> str:
  """Return a path from a file if it can only lie inside, else raise."""
  parts = path.split('/')
  if not parts or not all(_NAME.fullmatch(p) or p == CARD for p in parts):
    raise errors.DataError(f'{SUITE}: unsafe path {path!r}')
  return path
