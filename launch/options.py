"""The launcher's options: each field of one dataclass is a flag."""

import dataclasses
import re
from typing import Literal

from jumprelu import errors
from jumprelu.files import dotted
from launch import tpu_types


def _field(default, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a launch; each field is a flag of the launcher."""

  target: Literal['jobset', 'queued_resource', 'local'] = _field(
      'jobset',
      'jobset: GKE; queued_resource: TPU VMs (legacy); local: one process on'
      " this computer's CPU, one layer after another.",
  )
  mode: Literal['render', 'apply'] = _field(
      'render',
      'render: only print or write the manifests or scripts; apply: submit'
      ' them with kubectl or gcloud, or train locally.',
  )
  run: str = _field('', 'Name of the run: a-z, 0-9 and dashes.')
  layers: str = _field('0', 'Layers, one job each: 0-25 or 5,12,20-22.')
  layers_per_job: int = _field(
      1, 'Successive layers of --layers that one job trains at once.'
  )
  out: str = _field(
      '', 'Root of the run directories OUT/RUN/layer_12: gs://... or a folder.'
  )
  image: str = _field('', 'Container image by digest: NAME@sha256:...')
  accelerator: str = _field('', f'One of {", ".join(tpu_types.ACCELERATORS)}.')
  topology: str = _field('', 'Topology of a slice, such as 4x4 or 2x2x1.')
  spot: bool = _field(False, 'Cheaper capacity that may be preempted.')
  max_restarts: int | None = _field(
      None, 'Counted restarts before giving up; default: 8, or 50 on spot.'
  )
  grace_seconds: int = _field(
      300, 'Seconds between SIGTERM and SIGKILL; spot may allow only 15.'
  )
  service_account: str = _field(
      '',
      'Service account of Kubernetes (jobset) or Google Cloud'
      ' (queued_resource).',
  )
  secrets: tuple[str, ...] = _field(
      (),
      'References, never values: ENV=SECRET:KEY of a Kubernetes Secret, or'
      ' ENV=SECRET:VERSION of Secret Manager (queued_resource).',
  )
  env: tuple[str, ...] = _field(
      (), 'Plain environment variables: NAME=VALUE,...'
  )
  volumes: tuple[str, ...] = _field(
      (), 'Persistent volume claims (jobset): CLAIM:/path or CLAIM:/path:ro.'
  )
  namespace: str = _field('default', 'Kubernetes namespace.')
  context: str = _field('', 'kubectl context; default: the current context.')
  queue: str = _field('', 'Local queue of Kueue, if the cluster has Kueue.')
  project: str = _field('', 'Google Cloud project (queued_resource).')
  zone: str = _field('', 'Google Cloud zone (queued_resource).')
  render_dir: str = _field(
      '', 'Folder for the rendered files; default: stdout.'
  )


@dataclasses.dataclass(frozen=True)
class Volume:
  """A persistent volume claim and its mount path."""

  claim: str
  path: str
  read_only: bool


@dataclasses.dataclass(frozen=True)
class Secret:
  """An environment variable and the reference to its secret value."""

  variable: str
  name: str
  key: str


def parse_layers(text: str) -> tuple[int, ...]:
  """Returns the layers of `0-25` or `5,12,20-22`."""
  layers = []
  for part in text.split(','):
    match = re.fullmatch(r'(\d{1,3})(?:-(\d{1,3}))?', part.strip(), re.ASCII)
    if not match:
      raise errors.UserError(f'--layers={text}: write 0-25 or 5,12,20-22')
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
      raise errors.UserError(
          f'--layers={text}: {part} is descending; write {last}-{first}'
      )
    layers += range(first, last + 1)
  twice = dotted.repeated(layers)
  if twice:
    raise errors.UserError(
        f'--layers={text}: layer {list(twice)[0]} is listed twice'
    )
  return tuple(layers)


def parse_volume(text: str) -> Volume:
  """Returns the volume of `CLAIM:/path` or `CLAIM:/path:ro`."""
  claim, path, *rest = text.split(':')
  return Volume(claim, path, read_only=bool(rest))


def parse_secret(text: str) -> Secret:
  """Returns the reference of `ENV=SECRET:KEY`."""
  variable, _, rest = text.partition('=')
  name, _, key = rest.partition(':')
  return Secret(variable, name, key)
