"""A JobSet of GKE for each layer, built as data.

How a failure is answered (exit codes: README.md of this folder): the Job's
podFailurePolicy fails the Job at once, both for a code that must not be tried
again and for a node that is taken away; its message tells the JobSet's rules
which of the two it was. Any other exit fails the Job too (backoffLimit 0) and
restarts the JobSet, counted.
"""

from typing import Any

import yaml

from launch import spec as spec_lib

# JAX's own default is not among the ports that the firewall rule of some v6e
# slices opens, and then the processes wait for each other until they give up.
COORDINATOR_PORT = '8476'

# Exit codes that mean: the same again will end the same.
FATAL = (2, 65, 66, 70)

# JobSet can tell the two apart by Kubernetes' wording only (from 0.10 on).
FATAL_PATTERN = 'failed with exit code .* matching FailJob rule'
PREEMPTED_PATTERN = 'has condition DisruptionTarget matching FailJob rule'

_CONTAINER = 'trainer'
_CACHE = '/cache'


def render(spec: spec_lib.LaunchSpec, layer: int) -> str:
  """The manifest of a layer as YAML."""
  return yaml.safe_dump(
      make_jobset(spec, layer),
      sort_keys=False,
      allow_unicode=True,
      width=10_000,  # No folding: a value reads as it was given.
  )


def make_jobset(spec: spec_lib.LaunchSpec, layer: int) -> dict[str, Any]:
  """The manifest of a layer as data."""
  labels = {
      'app.kubernetes.io/name': 'jumprelu',
      'app.kubernetes.io/instance': spec.options.run,
      'jumprelu-layer': str(layer),
  }
  queue = spec.options.queue
  return {
      'apiVersion': 'jobset.x-k8s.io/v1alpha2',
      'kind': 'JobSet',
      'metadata': {
          'name': spec.name(layer),
          'namespace': spec.options.namespace,
          'labels': labels
          | ({'kueue.x-k8s.io/queue-name': queue} if queue else {}),
          'annotations': {
              # One slice is one node pool: no other job may share it.
              'alpha.jobset.sigs.k8s.io/exclusive-topology': (
                  'cloud.google.com/gke-nodepool'
              ),
          },
      },
      'spec': {
          'failurePolicy': _failure_policy(spec),
          # One replica: GKE takes replicas for the slices of one large job.
          'replicatedJobs': [
              {
                  'name': 'train',
                  'replicas': 1,
                  'template': {'spec': _job(spec, layer, labels)},
              }
          ],
      },
  }


def _failure_policy(spec: spec_lib.LaunchSpec) -> dict[str, Any]:
  return {
      'maxRestarts': spec.max_restarts,
      # No pod of the next try meets one of the last.
      'restartStrategy': 'BlockingRecreate',
      # Named: the released CRD demands it, and only the webhook would fill it.
      'rules': [
          {
              'name': 'fatalExit',
              'action': 'FailJobSet',
              'onJobFailureReasons': ['PodFailurePolicy'],
              'onJobFailureMessagePatterns': [FATAL_PATTERN],
          },
          {
              'name': 'preempted',
              'action': 'RestartJobSetAndIgnoreMaxRestarts',
              'onJobFailureReasons': ['PodFailurePolicy'],
              'onJobFailureMessagePatterns': [PREEMPTED_PATTERN],
          },
          {'name': 'other', 'action': 'RestartJobSet'},
      ],
  }


def _job(
    spec: spec_lib.LaunchSpec, layer: int, labels: dict[str, str]
) -> dict[str, Any]:
  hosts = spec.slice.hosts
  return {
      'parallelism': hosts,
      'completions': hosts,
      'completionMode': 'Indexed',
      'backoffLimit': 0,
      'podFailurePolicy': {
          'rules': [
              {
                  'action': 'FailJob',
                  'onExitCodes': {
                      'containerName': _CONTAINER,
                      'operator': 'In',
                      'values': list(FATAL),
                  },
              },
              {
                  'action': 'FailJob',
                  'onPodConditions': [
                      {'type': 'DisruptionTarget', 'status': 'True'}
                  ],
              },
          ]
      },
      'template': {
          'metadata': {'labels': dict(labels)},
          'spec': _pod(spec, layer),
      },
  }


def _pod(spec: spec_lib.LaunchSpec, layer: int) -> dict[str, Any]:
  options = spec.options
  selector = {
      'cloud.google.com/gke-tpu-accelerator': spec.slice.gke_accelerator,
      'cloud.google.com/gke-tpu-topology': spec.slice.topology,
  }
  tolerations = [
      {'key': 'google.com/tpu', 'operator': 'Exists', 'effect': 'NoSchedule'}
  ]
  if options.spot:
    spot = 'cloud.google.com/gke-spot'
    selector[spot] = 'true'
    tolerations.append(
        {
            'key': spot,
            'operator': 'Equal',
            'value': 'true',
            'effect': 'NoSchedule',
        }
    )
  volumes = [{'name': 'cache', 'emptyDir': {}}]
  for number, volume in enumerate(spec.volumes):
    claim = {'claimName': volume.claim, 'readOnly': volume.read_only}
    name = f'volume-{number}'
    volumes.append({'name': name, 'persistentVolumeClaim': claim})
  account = options.service_account
  return {
      'restartPolicy': 'Never',  # podFailurePolicy demands it.
      'terminationGracePeriodSeconds': options.grace_seconds,
      'hostNetwork': True,
      'dnsPolicy': 'ClusterFirstWithHostNet',
      **({'serviceAccountName': account} if account else {}),
      'automountServiceAccountToken': False,
      'nodeSelector': selector,
      'tolerations': tolerations,
      'containers': [_container(spec, layer)],
      'volumes': volumes,
  }


def _container(spec: spec_lib.LaunchSpec, layer: int) -> dict[str, Any]:
  env = [
      {'name': 'JAX_COORDINATOR_PORT', 'value': COORDINATOR_PORT},
      {'name': 'JUMPRELU_CACHE', 'value': _CACHE},
  ]
  env += [{'name': name, 'value': value} for name, value in spec.env.items()]
  for secret in spec.secrets:
    reference = {'name': secret.name, 'key': secret.key}
    env.append(
        {
            'name': secret.variable,
            'valueFrom': {'secretKeyRef': reference},
        }
    )
  mounts: list[dict[str, Any]] = [{'name': 'cache', 'mountPath': _CACHE}]
  for number, volume in enumerate(spec.volumes):
    mounts.append(
        {
            'name': f'volume-{number}',
            'mountPath': volume.path,
            'readOnly': volume.read_only,
        }
    )
  return {
      'name': _CONTAINER,
      'image': spec.options.image,
      # No shell in between: SIGTERM must reach Python. Kubernetes would put a
      # variable in the place of $(NAME): $$ is how it reads a plain $.
      'command': [word.replace('$', '$$') for word in spec.command(layer)],
      'env': env,
      'resources': {'limits': {'google.com/tpu': spec.slice.chips_a_host}},
      'securityContext': {'allowPrivilegeEscalation': False},
      'volumeMounts': mounts,
  }
