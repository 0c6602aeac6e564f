"""Validation of a launch; every message names the flag."""

from collections.abc import Iterator, Sequence
import re

from jumprelu import errors
from jumprelu.files import dotted
from launch import options as options_lib
from launch import tpu_types

# JobSet names a pod RUN-lNN-train-0-INDEX-abcde, which must be a valid label:
# at most 63 characters, starting with a letter.
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
# Flags that the launcher sets, or that print help instead of training.
_OURS = ('out', 'layer', 'layers', 'help', 'helpfull', 'h')
_OUR_VARIABLES = ('JAX_COORDINATOR_PORT', 'JUMPRELU_CACHE')


def problems(options: options_lib.Options) -> Iterator[str]:
  """Yields a message for every invalid option."""
  layers = (0,)
  try:
    layers = options_lib.parse_layers(options.layers)
  except errors.UserError as error:
    yield str(error)
  if options.layers_per_job < 1:
    yield f'--layers_per_job={options.layers_per_job} must be at least 1'
  if not _RUN.match(options.run):
    yield f'--run={options.run}: use a-z, 0-9 and dashes, a letter first'
  if not options.out:
    yield '--out is required: the root folder of the run directories'
  if options.target == 'local':
    return
  hosts = 1
  try:
    hosts = tpu_types.make_slice(options.accelerator, options.topology).hosts
  except errors.UserError as error:
    yield str(error)
  longest = f'{options.run}-l{max(layers):02d}-train-0-{hosts - 1}-abcde'
  if len(longest) > _MAX_LABEL:
    limit = len(options.run) - (len(longest) - _MAX_LABEL)
    yield f'--run={options.run}: at most {limit} characters, for pod names'
  if not _IMAGE.match(options.image):
    yield (
        f'--image={options.image}: name it by digest, NAME@sha256:...; a tag'
        ' may change before a restart'
    )
  if (options.max_restarts or 0) < 0:
    yield f'--max_restarts={options.max_restarts} must be at least 0'
  if options.grace_seconds < 1:
    yield f'--grace_seconds={options.grace_seconds} must be at least 1'
  if options.service_account and not _ACCOUNT.match(options.service_account):
    yield (
        f'--service_account={options.service_account}: not a valid name; use'
        ' lower-case letters, digits, dashes, dots and @'
    )
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
      # The value is left out, because the message is printed.
      yield f'--env={name}=...: pass a secret by reference, with --secrets'
    elif name in _OUR_VARIABLES:
      yield f'--env={name}: the launcher sets it'
  for text in options.secrets:
    if not _SECRET.match(text):
      name = text.partition('=')[0]
      yield f'--secrets={name}=...: write ENV=SECRET:KEY, names only'
    else:
      names.append(text.partition('=')[0])
  for name in dotted.repeated(names):
    yield f'--env and --secrets set the variable {name} twice'


def _place_problems(options: options_lib.Options) -> Iterator[str]:
  """Yields a message for every invalid volume, path, project or zone."""
  on_gke = options.target == 'jobset'
  for name, value in (
      ('namespace', options.namespace),
      ('queue', options.queue),
  ):
    if value and (len(value) > _MAX_LABEL or not _LABEL.match(value)):
      yield f'--{name}={value}: use a-z, 0-9 and dashes only'
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
        f'--out={options.out}: use gs://... or a folder on a writable volume; a'
        " pod's own disk is deleted with the pod"
    )
  if not on_gke:
    for name, value in (('project', options.project), ('zone', options.zone)):
      if not _LABEL.match(value):
        yield f'--{name}={value}: required for --target=queued_resource'


def flag_problems(flags: Sequence[str]) -> Iterator[str]:
  """Yields a message for every trainer flag that the launcher forbids.

  The trainer's parser checks the other flags.
  """
  for flag in flags:
    name = flag.partition('=')[0].lstrip('-')
    if not flag.startswith('-'):
      continue
    if name in _OURS:
      yield f'--{name}: the launcher sets it; leave it out after --'
    elif name.startswith('process.'):
      yield f'--{name}: processes find each other automatically; leave it out'
    elif _is_secret(name):
      yield f'--{name}=...: pass a secret by reference, with --secrets'


def _is_secret(name: str) -> bool:
  """Returns whether a name suggests a secret; `tokens` is a count of tokens."""
  return not _SECRET_WORDS.isdisjoint(re.split(r'[-_.]', name.lower()))
