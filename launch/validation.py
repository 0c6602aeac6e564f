"""What can be wrong with a launch, each a sentence that names the flag."""

from collections.abc import Iterator, Sequence
import re

from jumprelu import errors
from jumprelu.files import dotted
from launch import options as options_lib
from launch import tpu_types

# JobSet names a pod RUN-lNN-train-0-INDEX-abcde: a label's 63 characters, and
# a letter first.
_LABEL = re.compile(r'[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z')
_MAX_LABEL = 63
_RUN = re.compile(r'[a-z]([-a-z0-9]*[a-z0-9])?\Z')
_IMAGE = re.compile(r'[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}\Z')
_ACCOUNT = re.compile(r'[a-z0-9]([-a-z0-9.@]*[a-z0-9])?\Z')
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*\Z')
_SECRET = re.compile(
    r'[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9][-.\w]*:[A-Za-z0-9][-.\w]*\Z', re.ASCII
)
_VOLUME = re.compile(r'[a-z0-9][-a-z0-9.]*:/[-\w./]*[\w](:ro)?\Z', re.ASCII)
_CLOUD_PATH = re.compile(r'gs://[a-z0-9][-_.a-z0-9]+(/[-\w.]+)*/?\Z', re.ASCII)
_SECRET_WORDS = frozenset(
    'token secret secrets password passwd passphrase key keys apikey credential'
    ' credentials'.split()
)
# What the launcher says itself, or what each process finds out on its own.
_OURS = ('out', 'layer', 'help', 'h')
_OUR_VARIABLES = ('JAX_COORDINATOR_PORT', 'JUMPRELU_CACHE')


def problems(options: options_lib.Options) -> Iterator[str]:
  """Everything that is wrong with the options."""
  layers = (0,)
  try:
    layers = options_lib.parse_layers(options.layers)
  except errors.UserError as error:
    yield str(error)
  if not _RUN.match(options.run):
    yield f'--run={options.run}: a-z, 0-9 and dashes, a letter first'
  if not options.out:
    yield '--out is needed: where run directories lie'
  if options.target == 'local':
    return
  hosts = 1
  try:
    hosts = tpu_types.make_slice(options.accelerator, options.topology).hosts
  except errors.UserError as error:
    yield str(error)
  longest = f'{options.run}-l{max(layers):02d}-train-0-{hosts - 1}-abcde'
  if len(longest) > _MAX_LABEL:
    most = len(options.run) - (len(longest) - _MAX_LABEL)
    yield f'--run={options.run}: at most {most} characters, for pod names'
  if not _IMAGE.match(options.image):
    yield (
        f'--image={options.image}: name it by digest, NAME@sha256:...; a tag'
        ' may change under a run that restarts'
    )
  if (options.max_restarts or 0) < 0:
    yield f'--max_restarts={options.max_restarts} must be at least 0'
  if options.grace_seconds < 1:
    yield f'--grace_seconds={options.grace_seconds} must be at least 1'
  if options.service_account and not _ACCOUNT.match(options.service_account):
    yield f'--service_account={options.service_account}: no such name can be'
  yield from _variable_problems(options)
  yield from _place_problems(options)


def _variable_problems(options: options_lib.Options) -> Iterator[str]:
  names = []
  for text in options.env:
    name, equals, _ = text.partition('=')
    names.append(name)
    if not equals or not _VARIABLE.match(name):
      yield f'--env={text}: write NAME=VALUE'
    elif _is_secret(name):
      # Not the value: this is printed.
      yield f'--env={name}=...: a secret goes by reference, --secrets'
    elif name in _OUR_VARIABLES:
      yield f'--env={name}: the launcher sets it'
  for text in options.secrets:
    if not _SECRET.match(text):
      name = text.partition('=')[0]
      yield f'--secrets={name}=...: write ENV=SECRET:KEY, names only'
    else:
      names.append(text.partition('=')[0])
  for name in dotted.repeated(names):
    yield f'the variable {name} is given twice'


def _place_problems(options: options_lib.Options) -> Iterator[str]:
  """What is wrong with volumes, paths, and the words for a place."""
  on_gke = options.target == 'jobset'
  for name, value in (
      ('namespace', options.namespace),
      ('queue', options.queue),
  ):
    if value and (len(value) > _MAX_LABEL or not _LABEL.match(value)):
      yield f'--{name}={value}: a-z, 0-9 and dashes'
  mounts = []
  for text in options.volumes:
    if not _VOLUME.match(text) or '/..' in text:
      yield f'--volumes={text}: write CLAIM:/path or CLAIM:/path:ro'
    else:
      volume = options_lib.parse_volume(text)
      mounts += [] if volume.read_only else [volume.path]
  if options.volumes and not on_gke:
    yield '--volumes: claims exist on GKE only; use gs://'
  under = any(options.out.startswith(path + '/') for path in mounts)
  if options.out and not _CLOUD_PATH.match(options.out) and not under:
    yield (
        f'--out={options.out}: neither gs://... nor under a writable volume; a'
        " pod's own disk dies with it"
    )
  if not on_gke:
    for name, value in (('project', options.project), ('zone', options.zone)):
      if not _LABEL.match(value):
        yield f'--{name}={value}: needed for queued_resource'


def flag_problems(flags: Sequence[str]) -> Iterator[str]:
  """What the launcher forbids; the trainer's parser says the rest."""
  for flag in flags:
    name = flag.partition('=')[0].lstrip('-')
    if not flag.startswith('-'):
      continue
    if name in _OURS:
      yield f'--{name}: the launcher sets it; leave it out after --'
    elif name.startswith('process.'):
      yield f'--{name}: every process finds the others by itself; leave it out'
    elif _is_secret(name):
      yield f'--{name}=...: a secret goes by reference, --secrets'


def _is_secret(name: str) -> bool:
  """Whether a name says secret; `tokens` are what a run is counted in."""
  return not _SECRET_WORDS.isdisjoint(re.split(r'[-_.]', name.lower()))
