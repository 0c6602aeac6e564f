"""Writes jobset.json, the strict schema of the rendered manifests.

  python launch/schema/generate.py > launch/schema/jobset.json

The schema has two sources. The Job (batch/v1 JobTemplateSpec, down to every
field of a pod) comes from the models of the official Kubernetes client for
Python (Apache-2.0), in the version that constraints.txt pins. Descriptions and
nulls are dropped, and quantities may be integers or text. The JobSet that
contains the Job is written for this project after the API types of JobSet
v0.10.1 (jobset.x-k8s.io/v1alpha2, Apache-2.0); it is not a copy of the released
CRD. Objects accept only the fields that the schema names, and counts must not
be negative.
"""

import json
import sys

_COUNT = {'type': 'integer', 'minimum': 0}
_TEXT = {'type': 'string'}
_FLAG = {'type': 'boolean'}
_TEXTS = {'type': 'array', 'items': _TEXT}
# Keys without meaning for validation.
_DROPPED = ('description', 'title', 'default', 'discriminator')


def _enum(*values):
  return {'type': 'string', 'enum': list(values)}


def _object(required=(), **properties):
  return {
      'type': 'object',
      'additionalProperties': False,
      'required': list(required),
      'properties': properties,
  }


def _list_of(name):
  return {'type': 'array', 'items': {'$ref': f'#/$defs/{name}'}}


def _jobset():
  """Returns the types of JobSet itself."""
  return {
      'JobSetSpec': _jobset_spec(),
      'FailurePolicyRule': _failure_policy_rule(),
      'ReplicatedJob': _replicated_job(),
  }


def _jobset_spec():
  network = _object(
      enableDNSHostnames=_FLAG,
      subdomain=_TEXT,
      publishNotReadyAddresses=_FLAG,
  )
  failure_policy = _object(
      maxRestarts=_COUNT,
      restartStrategy=_enum('Recreate', 'BlockingRecreate'),
      rules=_list_of('FailurePolicyRule'),
  )
  success_policy = _object(
      ('operator',),
      operator=_enum('All', 'Any'),
      targetReplicatedJobs=_TEXTS,
  )
  startup_policy = _object(
      ('startupPolicyOrder',), startupPolicyOrder=_enum('AnyOrder', 'InOrder')
  )
  coordinator = _object(
      ('replicatedJob',), replicatedJob=_TEXT, jobIndex=_COUNT, podIndex=_COUNT
  )
  return _object(
      ('replicatedJobs',),
      replicatedJobs={**_list_of('ReplicatedJob'), 'minItems': 1},
      network=network,
      successPolicy=success_policy,
      failurePolicy=failure_policy,
      startupPolicy=startup_policy,
      suspend=_FLAG,
      coordinator=coordinator,
      managedBy=_TEXT,
      ttlSecondsAfterFinished=_COUNT,
  )


def _failure_policy_rule():
  name = {
      'type': 'string',
      'pattern': '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$',
  }
  reason = _enum(
      'BackoffLimitExceeded',
      'DeadlineExceeded',
      'FailedIndexes',
      'MaxFailedIndexesExceeded',
      'PodFailurePolicy',
  )
  return _object(
      ('name', 'action'),
      name=name,
      action=_enum(
          'FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts'
      ),
      onJobFailureReasons={'type': 'array', 'items': reason},
      onJobFailureMessagePatterns=_TEXTS,
      targetReplicatedJobs=_TEXTS,
  )


def _replicated_job():
  depends = _object(
      ('name', 'status'), name=_TEXT, status=_enum('Ready', 'Complete')
  )
  return _object(
      ('name', 'template'),
      name=_TEXT,
      groupName=_TEXT,
      template={'$ref': '#/$defs/V1JobTemplateSpec'},
      replicas=_COUNT,
      dependsOn={'type': 'array', 'maxItems': 1, 'items': depends},
  )


def _plain(node):
  """Returns the node without documentation keys and without null types."""
  if isinstance(node, list):
    return [_plain(item) for item in node]
  if not isinstance(node, dict):
    return node
  result = {}
  for key, value in node.items():
    if key == 'properties':
      result[key] = {name: _plain(child) for name, child in value.items()}
    elif key not in _DROPPED:
      result[key] = _plain(value)
  kinds = [kind for kind in result.get('anyOf', []) if kind != {'type': 'null'}]
  if len(kinds) == 1:
    result = kinds[0]
  elif kinds:
    result['anyOf'] = kinds
  return result


def _tighten(defs):
  """Adds enums and bounds that the client's models lack."""
  number = {'type': ['integer', 'string']}
  quantity = {'type': 'object', 'additionalProperties': number}
  for name in ('limits', 'requests'):
    defs['V1ResourceRequirements']['properties'][name] = quantity
  job = defs['V1JobSpec']['properties']
  for name in ('parallelism', 'completions', 'backoffLimit'):
    job[name] = _COUNT
  job['completionMode'] = _enum('Indexed', 'NonIndexed')
  rule = defs['V1PodFailurePolicyRule']['properties']
  rule['action'] = _enum('FailJob', 'FailIndex', 'Ignore', 'Count')
  exits = defs['V1PodFailurePolicyOnExitCodesRequirement']['properties']
  exits['operator'] = _enum('In', 'NotIn')
  # Kubernetes refuses podFailurePolicy with any other restart policy.
  defs['V1PodSpec']['properties']['restartPolicy'] = _enum('Never')


def make_schema():
  """Returns the whole schema as data."""
  import kubernetes
  from kubernetes.client import models

  source = models.V1JobTemplateSpec.model_json_schema(by_alias=True)
  defs = source.pop('$defs')
  defs = {name: _plain(node) for name, node in defs.items()}
  defs['V1JobTemplateSpec'] = _plain(source)
  _tighten(defs)
  return {
      '$schema': 'https://json-schema.org/draft/2020-12/schema',
      '$comment': (
          'Made by launch/schema/generate.py, which names the sources;'
          f' Apache-2.0. Kubernetes client {kubernetes.__version__}; JobSet'
          ' v0.10.1.'
      ),
      **_object(
          ('apiVersion', 'kind', 'metadata', 'spec'),
          apiVersion=_enum('jobset.x-k8s.io/v1alpha2'),
          kind=_enum('JobSet'),
          metadata={'$ref': '#/$defs/V1ObjectMeta'},
          spec={'$ref': '#/$defs/JobSetSpec'},
      ),
      '$defs': _jobset() | defs,
  }


def write(schema, file):
  """Writes one type per line, so that a diff is readable."""
  defs = schema.pop('$defs')
  head = json.dumps(schema, indent=1).removesuffix('\n}')
  lines = [
      f'  {json.dumps(name)}: {json.dumps(defs[name], sort_keys=True)}'
      for name in sorted(defs)
  ]
  file.write(head + ',\n "$defs": {\n' + ',\n'.join(lines) + '\n }\n}\n')


if __name__ == '__main__':
  write(make_schema(), sys.stdout)
