"""A bad spec is refused with every problem named; a good one is parsed."""

import pytest

from jumprelu import errors
from launch import options, spec
from tests.launch import small_launch


def _problems(*flags, **changes):
  with pytest.raises(errors.UserError) as e:
    small_launch.make_spec(*flags, **changes)
  assert e.value.exit_code == 2
  return str(e.value)


@pytest.mark.parametrize(
    'text, layers',
    [
        ('12', (12,)),
        ('0-3', (0, 1, 2, 3)),
        ('5, 12,20-22', (5, 12, 20, 21, 22)),
    ],
)
def test_layers_are_ranges_and_lists(text, layers):
  assert options.parse_layers(text) == layers


@pytest.mark.parametrize(
    'text', ['', '3-1', '1,1', '0-3,2', '1-', '-1', 'a', '1.0', '1;2', '²']
)
def test_invalid_layers_are_refused(text):
  assert f'--layers={text}' in _problems(layers=text)


@pytest.mark.parametrize(
    'name, value',
    [
        ('run', 'Bad_Name!'),
        ('run', '2b'),
        ('run', ''),
        ('run', 'scope\n'),
        ('image', 'registry/jumprelu:latest'),
        ('image', 'registry/jumprelu@sha256:12'),
        ('image', ''),
        ('accelerator', 'v5'),
        ('topology', '4x5'),
        ('max_restarts', -1),
        ('grace_seconds', 0),
        ('service_account', 'me; rm'),
        ('namespace', 'A'),
        ('queue', 'a b'),
        ('volumes', ('claim',)),
        ('volumes', ('claim:/mnt/../etc',)),
        ('volumes', ('claim:mnt',)),
        ('env', ('1A=2',)),
        ('env', ('NAME',)),
        ('env', ('JUMPRELU_CACHE=/x',)),
        ('secrets', ('HF_TOKEN=hf',)),
    ],
)
def test_a_bad_option_is_refused_by_name(name, value):
  assert f'--{name}' in _problems(**{name: value})


def test_one_message_names_every_problem():
  text = _problems('--out=a', run='-', image='x', layers='9-1', topology='1')
  for flag in ('--out', '--run', '--image', '--layers', '--topology'):
    assert flag in text


def test_names_of_pods_stay_within_63_characters():
  # RUN-l12-train-0-3-abcde: 20 characters besides the run's name.
  longest = 'r' * 43
  assert len(f'{longest}-l12-train-0-3-abcde') == 63
  assert small_launch.make_spec(run=longest).name(12) == longest + '-l12'
  assert 'at most 43 characters' in _problems(run=longest + 'r')
  # The index of ten or more hosts has two digits.
  assert 'at most 42 characters' in _problems(run=longest, topology='8x8')


@pytest.mark.parametrize(
    'flag',
    [
        '--hf_token=hf_abc',
        '--api-key=abc',
        '--db.password=abc',
        '--secret=abc',
        '--PASSWORD=abc',
        '--token',
    ],
)
def test_a_literal_secret_is_refused_and_not_repeated(flag):
  text = _problems(flag)
  assert 'by reference' in text
  assert 'abc' not in text


@pytest.mark.parametrize('name', ['HF_TOKEN', 'AWS_SECRET_ACCESS_KEY'])
def test_a_literal_secret_in_a_variable_is_refused_and_not_repeated(name):
  text = _problems(env=(f'{name}=abcdef',))
  assert 'by reference' in text
  assert 'abcdef' not in text


@pytest.mark.parametrize('text', ['HF_TOKEN=hf_abcdef', 'HF_TOKEN=a b:abcdef'])
def test_a_value_where_a_reference_belongs_is_not_repeated(text):
  assert 'abcdef' not in _problems(secrets=(text,))


def test_counts_of_tokens_are_no_secrets():
  flags = ('--tokens=4000000', '--stream.scale_tokens=4096')
  assert small_launch.make_spec(*flags).trainer_flags == flags


@pytest.mark.parametrize(
    'flag',
    [
        '--layer=3',
        '--out=x',
        '--process.num_processes=4',
        '--help',
        '--helpfull',
        '--help=optim',
    ],
)
def test_flags_that_the_launcher_sets_are_refused(flag):
  assert 'leave it out' in _problems(flag)


def test_a_variable_set_twice_is_refused():
  text = _problems(env=('A=1',), secrets=('A=s:k', 'B=s:k'))
  assert 'set the variable A twice' in text


@pytest.mark.parametrize(
    'out', ['runs', '/runs', '/mnt/other', 'gs://', '/data']
)
def test_a_run_directory_on_a_pods_own_disk_is_refused(out):
  text = _problems(out=out, volumes=('claim:/data', 'more:/mnt/other:ro'))
  assert f'--out={out}' in text


def test_a_run_directory_on_a_writable_volume_is_accepted():
  made = small_launch.make_spec(
      out='/data/runs/', volumes=('claim:/data',), layers='3'
  )
  assert made.run_dir(3) == '/data/runs/scope-2b/layer_03'


def test_a_local_run_needs_no_cluster():
  made = options.Options(target='local', run='a', out='runs', layers='1')
  assert spec.LaunchSpec(made).command(1) == [
      'python',
      '-m',
      'jumprelu.run.main',
      'train',
      '--out=runs/a/layer_01',
      '--layer=1',
  ]


def test_tpu_vms_have_no_claims_and_need_a_project():
  text = _problems(
      target='queued_resource', volumes=('a:/b',), project='', zone=''
  )
  for flag in ('--volumes', '--project', '--zone'):
    assert flag in text


def test_spot_restarts_more_often():
  assert small_launch.make_spec().max_restarts == 8
  assert small_launch.make_spec(spot=True).max_restarts == 50
  assert small_launch.make_spec(spot=True, max_restarts=0).max_restarts == 0


def test_a_job_may_train_several_layers():
  made = small_launch.make_spec(layers='5,12,20-22', layers_per_job=2)
  assert made.jobs == (5, 20, 22)
  assert [made.layers(job) for job in made.jobs] == [(5, 12), (20, 21), (22,)]
  assert made.run_dir(5).endswith('/layers_05-12')
  assert made.run_dir(22).endswith('/layer_22')
  assert '--layers=5,12' in made.command(5)
  assert '--layer=22' in made.command(22)
  assert (made.name(5), made.label(5)) == (f'{made.options.run}-l05', '5-12')
  assert made.label(22) == '22'


def test_a_job_has_a_layer():
  assert '--layers_per_job=0' in _problems(layers_per_job=0)
