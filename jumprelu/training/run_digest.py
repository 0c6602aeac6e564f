"""The identity of a run: its digest, its portable config, and its commands."""

from collections.abc import Sequence
import hashlib
import json
import pathlib
import re
import shlex

from jumprelu import lm
from jumprelu.files import dotted
from jumprelu.training import config as config_lib
from jumprelu.training import resume

# Fields with local paths, which are not needed to reproduce a run.
_LOCAL = ('corpus.cache_dir', 'corpus.data_dir', 'store')
_ADDED = {
    'affine_skip': False,
    'corpus.max_bad_rows': 0.0,
    'init_from': '',
    'layers': (),
    'optim.update_clip': 0.0,
    'stream.center': False,
    'stream.max_norm': 0.0,
}
# An optional scheme and the rest of an entry of `--data`: tokens:FOLDER,
# tfds:NAME, gs://BUCKET/NAME. A drive such as c:/ is not a scheme.
_SCHEME = re.compile(r'(tokens:|[a-z]+:(?!/[^/]))?(.*)', re.DOTALL)


def run_digest(config: config_lib.TrainConfig) -> str:
  """Returns the digest of the fields that determine a run's results."""
  fields = {
      path: leaf.value
      for path, leaf in dotted.leaves(config).items()
      if not dotted.is_among(path, resume.SOFT)
  }
  # Options that earlier versions lacked are hashed only if they have an effect.
  for path, default in _ADDED.items():
    if fields[path] == default:
      del fields[path]
  # Earlier versions hashed the backend in a field `path`. Its old default is
  # still hashed, so that digests of existing runs and releases remain valid.
  fields['path'] = 'auto'
  text = json.dumps(fields, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def suite_digest(configs: Sequence[config_lib.TrainConfig]) -> str:
  """Returns the digest of a run and of the members that were added to it.

  Args:
    configs: The config of the run, and those of added members.
  """
  digests = [run_digest(config) for config in configs]
  if len(digests) == 1:
    return digests[0]
  return hashlib.sha256(' '.join(digests).encode()).hexdigest()


def portable(config: config_lib.TrainConfig) -> config_lib.TrainConfig:
  """Returns the config without the local paths of the machine that it ran on.

  The absolute path of a text or a model is reduced to its last name.
  """
  default = dotted.leaves(config_lib.resolve({'recipe': config.recipe}))
  model = config.model
  changes = {path: default[path].value for path in _LOCAL}
  changes['data'] = ','.join(map(_portable_text, config.data.split(',')))
  if model not in lm.MODELS:
    changes['model'] = _last_name(model)
  changes['init_from'] = _last_name(config.init_from)
  return dotted.replace(config, changes)


def _portable_text(source: str) -> str:
  """Returns one entry of `--data`, with a local path reduced to its last name.

  Entries that name remote data are returned unchanged.
  """
  match = _SCHEME.match(source)
  scheme, path = match.groups(default='') if match else ('', source)
  if scheme and scheme != 'tokens:':
    return source
  return scheme + _last_name(path)


def _last_name(path: str) -> str:
  """Returns the last name of an absolute path; other paths unchanged."""
  is_absolute = path.startswith(('/', '~')) or pathlib.Path(path).is_absolute()
  return pathlib.PurePath(path).name if is_absolute else path


def commands(
    config: config_lib.TrainConfig,
    added: Sequence[config_lib.TrainConfig] = (),
) -> str:
  """Returns the shell commands that train the run again and release it.

  Args:
    config: The config of the run.
    added: The configs of the members that were added to it.
  """
  config = portable(config)
  default = config_lib.resolve({'recipe': config.recipe})
  lines = [
      _train([f'--recipe={config.recipe}'], config, default),
      *(_train(['--add'], portable(other), config) for other in added),
      'jumprelu release --run=RUN --out=RELEASE',
  ]
  return '\n'.join(lines)


def _train(
    flags: Sequence[str],
    config: config_lib.TrainConfig,
    default: config_lib.TrainConfig,
) -> str:
  """Returns a command with a flag for each field that is not the default."""
  before = dotted.leaves(default)
  words = ['jumprelu train --out=RUN', *flags]
  for path, leaf in dotted.leaves(config).items():
    value = leaf.value
    if value != before[path].value and path != 'recipe':
      if isinstance(value, tuple):
        value = ','.join(map(str, value))
      words.append(shlex.quote(f'--{path}={value}'))
  return ' \\\n  '.join(words)
