"""What a run computes, as a digest and as the commands that do it again."""

import hashlib
import json
import shlex

from jumprelu.files import dotted
from jumprelu.training import config as config_lib
from jumprelu.training import run_dir

# Where things lie on one machine is no part of how to make them again.
_LOCAL = ('recipe', 'corpus.cache_dir', 'corpus.data_dir', 'store')


def run_digest(config: config_lib.TrainConfig) -> str:
  """Digest what a run computes; where and how it runs does not count."""
  fields = {
      path: leaf.value
      for path, leaf in dotted.leaves(config).items()
      if not path.startswith(run_dir.SOFT)
  }
  # Hashed under its name of format 1, so that the digests of existing runs and
  # releases remain.
  fields['path'] = fields.pop('backend')
  text = json.dumps(fields, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def commands(config: config_lib.TrainConfig) -> str:
  """Write the commands that make the release again."""
  default = dotted.leaves(config_lib.resolve({'recipe': config.recipe}))
  train = ['jumprelu train --out=RUN', f'--recipe={config.recipe}']
  for path, leaf in dotted.leaves(config).items():
    value = leaf.value
    if value != default[path].value and path not in _LOCAL:
      if isinstance(value, tuple):
        value = ','.join(map(str, value))
      train.append(shlex.quote(f'--{path}={value}'))
  return ' \\\n  '.join(train) + '\njumprelu release --run=RUN --out=RELEASE'
