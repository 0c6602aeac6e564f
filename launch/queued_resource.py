"""A queued resource (TPU VMs, no cluster) for each layer. Legacy.

The Cloud TPU API gets no new hardware; it stays the shortest way for one
person. A spot slice that is taken away must be deleted and asked for again by
hand: the start-up script runs at every boot, not after that.
"""

import pathlib
import shlex

from launch import jobset
from launch import spec as spec_lib

_CACHE = '/var/cache/jumprelu'
_STARTUP = pathlib.Path(__file__).with_name('startup.sh')


def script_name(spec: spec_lib.LaunchSpec, layer: int) -> str:
  """The file that holds a layer's start-up script."""
  return f'{spec.name(layer)}.startup.sh'


def make_argv(spec: spec_lib.LaunchSpec, layer: int) -> list[str]:
  """The gcloud command that asks for a layer's slice."""
  options, name = spec.options, spec.name(layer)
  argv = [
      'gcloud',
      'compute',
      'tpus',
      'queued-resources',
      'create',
      name,
      f'--node-id={name}',
      f'--project={options.project}',
      f'--zone={options.zone}',
      f'--accelerator-type={spec.slice.gcloud_type}',
      f'--runtime-version={spec.slice.runtime_version}',
      f'--labels=jumprelu-run={options.run},jumprelu-layer={layer}',
      f'--metadata-from-file=startup-script={script_name(spec, layer)}',
  ]
  if options.spot:
    argv.append('--spot')
  if options.service_account:
    argv.append(f'--service-account={options.service_account}')
  return argv


def render_script(spec: spec_lib.LaunchSpec, layer: int) -> str:
  """The script that each host of a layer's slice runs at boot."""
  registry = spec.options.image.partition('/')[0]
  lines = ['#!/usr/bin/env bash']
  if registry.endswith('-docker.pkg.dev'):
    lines.append(f'gcloud auth configure-docker {registry} --quiet')
  # The values are fetched on the host, and pass docker by name.
  for secret in spec.secrets:
    argv = ['gcloud', 'secrets', 'versions', 'access', secret.key]
    lookup = shlex.join([*argv, f'--secret={secret.name}'])
    lines.append(f'{secret.variable}="$({lookup})"')
    lines.append(f'export {secret.variable}')
  lines += [
      f'export MAX_RESTARTS={spec.max_restarts}',
      f'set -- {shlex.join(_docker(spec, layer))}',
  ]
  body = _STARTUP.read_text('utf-8').partition('\n')[2]
  return '\n'.join(lines) + '\n\n' + body


def render_create(spec: spec_lib.LaunchSpec) -> str:
  """The script that asks for all slices; it lies beside the others."""
  lines = ['#!/usr/bin/env bash', 'set -eu', 'cd "$(dirname "$0")"']
  lines += [shlex.join(make_argv(spec, layer)) for layer in spec.layers]
  return '\n'.join(lines) + '\n'


def _docker(spec: spec_lib.LaunchSpec, layer: int) -> list[str]:
  """Runs the trainer in its container, with the host's network and chips."""
  env = {
      'JAX_COORDINATOR_PORT': jobset.COORDINATOR_PORT,
      'JUMPRELU_CACHE': '/cache',
      **spec.env,
  }
  argv = ['docker', 'run', '--rm', '--network=host']
  # The chips of a TPU VM are devices of the host that docker hands over only
  # to a privileged container; GKE has a device plugin instead.
  argv += ['--privileged', '--ulimit=memlock=-1']
  argv.append(f'--stop-timeout={spec.options.grace_seconds}')
  argv.append(f'--volume={_CACHE}:/cache')
  argv += [f'--env={name}={value}' for name, value in env.items()]
  argv += [f'--env={secret.variable}' for secret in spec.secrets]
  # The image's entry point is python.
  return [*argv, spec.options.image, *spec.command(layer)[1:]]
