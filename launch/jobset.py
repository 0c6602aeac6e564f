"""A JobSet of GKE for each job, built as data.

Failure handling (exit codes: README.md in this folder): the Job's
podFailurePolicy fails the Job at once, both for a fatal exit code and for a
preempted node; the JobSet's rules distinguish the two by the failure message.
Any other exit also fails the Job (backoffLimit 0), and the JobSet restarts and
counts the restart.
"""

from typing import Any

import yaml

from launch import spec as spec_lib

# On some v6e slices the firewall does not open JAX's default port, so that the
# processes would wait for each other until they time out.
COORDINATOR_PORT = '8476'

# Exit codes after which a retry would fail in the same way.
FATAL = (2, 65, 66, 70)

# JobSet (0.10 or newer) can distinguish fatal exits from preemptions only by
# the wording of Kubernetes' failure messages.
FATAL_PATTERN = 'failed with exit code .* matching FailJob rule'
PREEMPTED_PATTERN = 'has condition DisruptionTarget matching FailJob rule'

_CONTAINER = 'trainer'
_CACHE = '/cache'


def render(spec: spec_lib.LaunchSpec, job: int) -> str:
  """Returns the manifest of a job as YAML."""
  return yaml.safe_dump(
      make_jobset(spec, job),
      sort_keys=False,
      allow_unicode=True,
      width=10_000,  # Wide enough that no value is folded.
  )


def make_jobset(spec: spec_lib.LaunchSpec, job: int) -> dict[str, Any]:
  """Returns the manifest of a job as data."""
  labels = {
      'app.kubernetes.io/name': 'jumprelu',
      'app.kubernetes.io/instance': spec.options.run,
      'jumprelu-layer': spec.label(job),
  }
  queue = spec.options.queue
  return {
      'apiVersion': 'jobset.x-k8s.io/v1alpha2',
      'kind': 'JobSet',
      'metadata': {
          'name': spec.name(job),
          'namespace': spec.options.namespace,
          'labels': labels
          | ({'kueue.x-k8s.io/queue-name': queue} if queue else {}),
          'annotations': {
              # Gives a job a node pool of its own, which is one slice.
              'alpha.jobset.sigs.k8s.io/exclusive-topology': (
                  'cloud.google.com/gke-nodepool'
              ),
          },
      },
      'spec': {
          'failurePolicy': _failure_policy(spec),
          # One, because GKE treats replicas as the slices of one large job.
          'replicatedJobs': [
              {
                  'name': 'train',
                  'replicas': 1,
                  'template': {'spec': _job(spec, job, labels)},
              }
          ],
      },
  }


def _failure_policy(spec: spec_lib.LaunchSpec) -> dict[str, Any]:
  return {
      'maxRestarts': spec.max_restarts,
      # Otherwise pods of two attempts could run at the same time.
      'restartStrategy': 'BlockingRecreate',
      # The released CRD requires a name for each rule. Without names, the
      # manifest would depend on JobSet's webhook, which fills them in.
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
    spec: spec_lib.LaunchSpec, job: int, labels: dict[str, str]
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
          'spec': _pod(spec, job),
      },
  }


def _pod(spec: spec_lib.LaunchSpec, job: int) -> dict[str, Any]:
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
      'restartPolicy': 'Never',  # Required by podFailurePolicy.
      'terminationGracePeriodSeconds': options.grace_seconds,
      'hostNetwork': True,
      'dnsPolicy': 'ClusterFirstWithHostNet',
      **({'serviceAccountName': account} if account else {}),
      'automountServiceAccountToken': False,
      'nodeSelector': selector,
      'tolerations': tolerations,
      'containers': [_container(spec, job)],
      'volumes': volumes,
  }


def _container(spec: spec_lib.LaunchSpec, job: int) -> dict[str, Any]:
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
      # No shell, because SIGTERM must reach Python. Kubernetes would expand
      # $(NAME), and $$ is its escape for $.
      'command': [word.replace('$', '$$') for word in spec.command(job)],
      'env': env,
      'resources': {'limits': {'google.com/tpu': spec.slice.chips_a_host}},
      'securityContext': {'allowPrivilegeEscalation': False},
      'volumeMounts': mounts,
  }
