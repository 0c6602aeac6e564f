"""Manifests match the stored ones and the schema, whatever words they hold."""

import copy
import json
import os
import pathlib

import jsonschema
import pytest
import yaml

from launch import jobset, trainer
from tests.launch import small_launch

_HERE = pathlib.Path(__file__).parent
_SCHEMA = json.loads(
    (_HERE.parents[1] / 'launch/schema/jobset.json').read_text('utf-8')
)

GOLDENS = {
    'jobset_v5e_spot.yaml': {
        'spot': True,
        'service_account': 'trainer',
        'secrets': ('HF_TOKEN=hf:token',),
        'env': ('XLA_FLAGS=--xla_a=1 --xla_b=2',),
        'volumes': ('scope:/mnt/scope', 'gemma:/mnt/gemma:ro'),
        'queue': 'tpus',
    },
    'jobset_v5p_one_host.yaml': {'accelerator': 'v5p', 'topology': '2x2x1'},
}


@pytest.fixture(scope='module')
def validator():
  jsonschema.Draft202012Validator.check_schema(_SCHEMA)
  return jsonschema.Draft202012Validator(_SCHEMA)


def _manifest(*flags, **changes):
  return jobset.make_jobset(small_launch.make_spec(*flags, **changes), 12)


def _pod(manifest):
  (job,) = manifest['spec']['replicatedJobs']
  return job['template']['spec']['template']['spec']


@pytest.mark.parametrize('name', GOLDENS)
def test_a_manifest_is_the_stored_one(name):
  """UPDATE_GOLDENS=1 rewrites the stored manifests."""
  text = jobset.render(small_launch.make_spec(**GOLDENS[name]), 12)
  path = _HERE / 'goldens' / name
  if os.environ.get('UPDATE_GOLDENS'):
    path.write_text(text, 'utf-8')
  assert path.read_text('utf-8') == text


@pytest.mark.parametrize(
    'model, layers, accelerator, topology',
    [
        ('gemma2_2b', range(26), 'v5e', '4x4'),
        ('gemma2_9b', (0, 9, 41), 'v5e', '8x8'),
        ('gemma2_9b_it', (20,), 'v6e', '4x4'),
        ('gemma2_27b', (10, 45), 'v5p', '2x2x2'),
        ('gemma2_27b', (22,), 'v4', '4x4x4'),
    ],
)
def test_manifests_of_all_layers_and_models_meet_the_schema(
    validator, model, layers, accelerator, topology
):
  made = small_launch.make_spec(
      f'--model={model}',
      '--widths=131072',
      layers=','.join(map(str, layers)),
      accelerator=accelerator,
      topology=topology,
      spot=True,
      volumes=('a:/b',),
      secrets=('S=a:b',),
      queue='q',
      service_account='s',
  )
  names = set()
  for layer in made.jobs:
    manifest = yaml.safe_load(jobset.render(made, layer))
    validator.validate(manifest)
    names.add(manifest['metadata']['name'])
  assert len(names) == len(made.jobs)
  # The last one, back through the trainer's parser.
  _, config = trainer.parse(_container(manifest)['command'])
  assert (config.model, config.layer) == (model, layers[-1])


def _spec(m):
  return m['spec']


def _job(m):
  return m['spec']['replicatedJobs'][0]['template']['spec']


def _container(m):
  return _pod(m)['containers'][0]


MUTATIONS = {
    'a misspelt field': lambda m: _spec(m)['failurePolicy'].update(
        maxRestart=1
    ),
    'restarts as text': lambda m: _spec(m)['failurePolicy'].update(
        maxRestarts='8'
    ),
    'negative restarts': lambda m: _spec(m)['failurePolicy'].update(
        maxRestarts=-1
    ),
    'an unknown action': lambda m: _spec(m)['failurePolicy']['rules'][0].update(
        action='Fail'
    ),
    'a rule without a name': lambda m: _spec(m)['failurePolicy']['rules'][
        2
    ].pop('name'),
    'an unknown strategy': lambda m: _spec(m)['failurePolicy'].update(
        restartStrategy='blockingRecreate'
    ),
    'the pod policy beside the job': lambda m: _spec(m)['replicatedJobs'][
        0
    ].update(podFailurePolicy=_job(m).pop('podFailurePolicy')),
    'the pod policy in the pod': lambda m: _pod(m).update(
        podFailurePolicy=_job(m).pop('podFailurePolicy')
    ),
    'an unknown pod action': lambda m: _job(m)['podFailurePolicy']['rules'][
        0
    ].update(action='FailJobSet'),
    'exit codes as text': lambda m: _job(m)['podFailurePolicy']['rules'][0][
        'onExitCodes'
    ].update(values=['2']),
    'a variable that is a number': lambda m: _container(m)['env'][0].update(
        value=8476
    ),
    'negative replicas': lambda m: _spec(m)['replicatedJobs'][0].update(
        replicas=-1
    ),
    'restarts of the pod': lambda m: _pod(m).update(restartPolicy='OnFailure'),
    'a command that is one string': lambda m: _container(m).update(
        command='python -m x'
    ),
    'a number among the words': lambda m: _container(m)['command'].append(3),
    'a label that is a number': lambda m: m['metadata']['labels'].update(
        layer=3
    ),
    'another version': lambda m: m.update(apiVersion='jobset.x-k8s.io/v1'),
    'no jobs': lambda m: _spec(m).update(replicatedJobs=[]),
    'a share of a chip': lambda m: _container(m)['resources']['limits'].update(
        {'google.com/tpu': 0.5}
    ),
}


@pytest.mark.parametrize('name', MUTATIONS)
def test_the_schema_refuses(validator, name):
  good = _manifest(spot=True)
  validator.validate(good)
  bad = copy.deepcopy(good)
  MUTATIONS[name](bad)
  assert not validator.is_valid(bad)


def test_the_schema_accepts_only_the_fields_it_names():
  objects = [_SCHEMA, *_SCHEMA['$defs'].values()]
  with_fields = [node for node in objects if 'properties' in node]
  assert len(with_fields) > 100
  for node in with_fields:
    assert node['additionalProperties'] is False


HOSTILE = [
    'a\nannotations:\n  b: c',
    'a: b',
    'a #b',
    '{}',
    '{a: b}',
    'no',
    'yes',
    '0123',
    '1e3',
    '~',
    '',
    '- a',
    '&a *a',
    '!!python/object:os.system x',
    '%TAG',
    'größe 層 🙂',
    '"\'`',
    ' a ',
    'a\tb',
    '$(HOME) $$ ${HOME}',
    'x' * 500,
]


@pytest.mark.parametrize('word', HOSTILE)
def test_any_word_survives_the_yaml(validator, word):
  made = small_launch.make_spec(f'--data={word}', word, env=(f'NAME={word}',))
  manifest = jobset.make_jobset(made, 12)
  read = yaml.safe_load(jobset.render(made, 12))
  assert read == manifest
  validator.validate(read)
  container = _container(read)
  # $$ is Kubernetes' escape for $.
  command = [text.replace('$$', '$') for text in container['command']]
  assert command[-2:] == [f'--data={word}', word]
  assert command[:-2] == made.command(12)[:-2]


def test_the_trainer_reads_the_rendered_command():
  made = small_launch.make_spec()
  read = yaml.safe_load(jobset.render(made, 12))
  command = _container(read)['command']
  assert command[:4] == ['python', '-m', 'jumprelu.run.main', 'train']
  flag_values, config = trainer.parse(command)
  assert flag_values.out == 'gs://my-bucket/runs/scope-2b/layer_12'
  assert config.layer == 12
  assert config.widths == (16384, 65536)
  assert config.sparsity_coefficients == ('resid_post:1e-3+3e-3', '2e-3')
  assert config.tokens == 4_000_000_000


def test_the_rules_have_names_and_are_in_order():
  policy = _manifest()['spec']['failurePolicy']
  rules = [(rule['name'], rule['action']) for rule in policy['rules']]
  assert rules == [
      ('fatalExit', 'FailJobSet'),
      ('preempted', 'RestartJobSetAndIgnoreMaxRestarts'),
      ('other', 'RestartJobSet'),
  ]


def test_a_pod_gets_its_chips_and_only_the_rights_it_needs():
  pod = _pod(_manifest())
  (container,) = pod['containers']
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert pod['hostNetwork'] and pod['restartPolicy'] == 'Never'
  assert pod['automountServiceAccountToken'] is False
  assert container['securityContext'] == {'allowPrivilegeEscalation': False}
  assert {'name': 'JAX_COORDINATOR_PORT', 'value': '8476'} in container['env']


def test_pods_are_as_many_as_hosts():
  for topology, hosts in (('2x2', 1), ('4x4', 4), ('16x16', 64)):
    job = _job(_manifest(topology=topology))
    assert (job['parallelism'], job['completions']) == (hosts, hosts)
    assert job['completionMode'] == 'Indexed' and job['backoffLimit'] == 0


def test_spot_is_requested_and_tolerated_only_on_spot():
  spot = 'cloud.google.com/gke-spot'
  for spot_option in (False, True):
    pod = _pod(_manifest(spot=spot_option))
    assert (spot in pod['nodeSelector']) == spot_option
    keys = [toleration['key'] for toleration in pod['tolerations']]
    assert (spot in keys) == spot_option and 'google.com/tpu' in keys


def test_fatal_codes_are_those_of_the_trainers_errors():
  from jumprelu import errors
  from jumprelu.run import preemption

  classes = [
      errors.UserError,
      errors.DataError,
      errors.MissingInputError,
      errors.NumericalError,
  ]
  assert jobset.FATAL == tuple(c.exit_code for c in classes)
  assert preemption.EXIT_PREEMPTED not in jobset.FATAL
  assert preemption.EXIT_WATCHDOG not in jobset.FATAL
  assert errors.FullDiskError.exit_code == 75
  assert errors.FullDiskError.exit_code not in jobset.FATAL
