"""Where things are kept between runs."""

import os
import pathlib


def cache() -> pathlib.Path:
  """Returns $JUMPRELU_CACHE or ~/.cache/jumprelu."""
  given = os.environ.get('JUMPRELU_CACHE')
  return pathlib.Path(given or pathlib.Path.home() / '.cache' / 'jumprelu')
