"""A queued resource (TPU VMs, no cluster) for each job. Legacy.

Queued resources offer no TPUs newer than v6e, but need the fewest steps. A
preempted spot slice must be deleted and requested again by hand, because the
start-up script runs only when a host boots.
"""

import pathlib
import shlex

from launch import jobset
from launch import spec as spec_lib

_CACHE = '/var/cache/jumprelu'
_STARTUP = pathlib.Path(__file__).with_name('startup.sh')


def script_name(spec: spec_lib.LaunchSpec, job: int) -> str:
  """Returns the file name of a job's start-up script."""
  return f'{spec.name(job)}.startup.sh'


def make_argv(spec: spec_lib.LaunchSpec, job: int) -> list[str]:
  """Returns the gcloud command that requests a job's slice."""
  options, name = spec.options, spec.name(job)
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
      f'--labels=jumprelu-run={options.run},jumprelu-layer={spec.label(job)}',
      f'--metadata-from-file=startup-script={script_name(spec, job)}',
  ]
  if options.spot:
    argv.append('--spot')
  if options.service_account:
    argv.append(f'--service-account={options.service_account}')
  return argv


def render_script(spec: spec_lib.LaunchSpec, job: int) -> str:
  """Returns the script that each host of a job's slice runs at boot."""
  registry = spec.options.image.partition('/')[0]
  lines = ['#!/usr/bin/env bash']
  if registry.endswith('-docker.pkg.dev'):
    lines.append(f'gcloud auth configure-docker {registry} --quiet')
  # The host fetches the values; docker gets only the variables' names.
  for secret in spec.secrets:
    argv = ['gcloud', 'secrets', 'versions', 'access', secret.key]
    lookup = shlex.join([*argv, f'--secret={secret.name}'])
    lines.append(f'{secret.variable}="$({lookup})"')
    lines.append(f'export {secret.variable}')
  lines += [
      f'export MAX_RESTARTS={spec.max_restarts}',
      f'set -- {shlex.join(_docker(spec, job))}',
  ]
  body = _STARTUP.read_text('utf-8').partition('\n')[2]
  return '\n'.join(lines) + '\n\n' + body


def render_create(spec: spec_lib.LaunchSpec) -> str:
  """Returns a script that requests all slices.

  It must be in the folder of the start-up scripts.
  """
  lines = ['#!/usr/bin/env bash', 'set -eu', 'cd "$(dirname "$0")"']
  lines += [shlex.join(make_argv(spec, job)) for job in spec.jobs]
  return '\n'.join(lines) + '\n'


def _docker(spec: spec_lib.LaunchSpec, job: int) -> list[str]:
  """Returns the docker argv of the trainer, with host network and chips."""
  env = {
      'JAX_COORDINATOR_PORT': jobset.COORDINATOR_PORT,
      'JUMPRELU_CACHE': '/cache',
      **spec.env,
  }
  argv = ['docker', 'run', '--rm', '--network=host']
  # The chips of a TPU VM are host devices, which docker exposes only to a
  # privileged container; GKE has a device plugin instead.
  argv += ['--privileged', '--ulimit=memlock=-1']
  argv.append(f'--stop-timeout={spec.options.grace_seconds}')
  argv.append(f'--volume={_CACHE}:/cache')
  argv += [f'--env={name}={value}' for name, value in env.items()]
  argv += [f'--env={secret.variable}' for secret in spec.secrets]
  # The image's entry point is python.
  return [*argv, spec.options.image, *spec.command(job)[1:]]
