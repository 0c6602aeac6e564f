"""Files of format 1, written by an earlier version, remain readable.

`fixtures/format_1/README.md` describes the files, which are never regenerated.
"""

import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import jumprelu
from jumprelu import errors, lm
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import store
from jumprelu.activations.store import record
from jumprelu.files import formats
from jumprelu.release import members, verify
from jumprelu.run import main
from jumprelu.training import config as config_lib
from jumprelu.training import job, load_run, run_digest, run_dir, train

FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'format_1'
TWIN = json.loads((FIXTURE / 'twin.json').read_text())
STOPPED, STEPS = 26, 48
# Other machines and other versions of libraries sum in another order. They
# guarantee the same data in the same order, but not the same bits.
TOLERANCE = 1e-5


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A copy of the fixture, which is the working directory."""
  place = tmp_path_factory.mktemp('format_1') / 'copy'
  shutil.copytree(FIXTURE, place)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(place)
    patch.setenv('JUMPRELU_CACHE', str(place / 'cache'))
    yield place


@pytest.fixture(scope='module')
def resumed(place):
  """The run, resumed by this version and finished."""
  shutil.copytree('run', 'resumed')
  config = run_dir.RunDir('resumed').read_config()
  assert train.train(config, 'resumed') == train.DONE
  return run_dir.RunDir('resumed')


def by_tap(scales):
  """Returns scales of format 1 under their current names."""
  return {f'layer_1.{site}': scale for site, scale in scales.items()}


def rows_of(path):
  lines = pathlib.Path(path).read_text().splitlines()
  return [json.loads(line) for line in lines]


def assert_same_rows(rows, wanted, *, near=1e-3):
  """Checks that numbers are close and all other values equal.

  `dead_share` is an exception: the old version computed it on fewer tokens than
  its window, for which this version returns None.
  """
  assert len(rows) == len(wanted) == 6
  for ours, theirs in zip(rows, wanted, strict=True):
    assert ours.keys() >= theirs.keys()
    assert ours['dead_share'] is None
    for name, value in (theirs | {'dead_share': None}).items():
      if isinstance(value, float):
        value = pytest.approx(value, rel=near, abs=near)
      assert ours[name] == value, name


def test_the_run_is_listed(place, capsys):
  assert main.launch('status', ['run', '--stale_minutes=1e9']) == 0
  listed = capsys.readouterr().out.splitlines()[1].split()
  assert listed[:4] == ['run', 'preempted', str(STOPPED), str(STEPS)]


def test_the_run_loads(place):
  directory = run_dir.RunDir('run')
  config = directory.read_config()
  assert (config.layer, config.steps) == (1, STEPS)
  assert directory.read_suite()['scales'] == by_tap(TWIN['scales'])
  trained = load_run.load_suite('run')
  names = [f'{m.member.site} {m.member.variant}' for m in trained]
  assert names == TWIN['members']
  assert trained[0].meta['counts']['step'] == STOPPED
  assert trained[0].meta['scales'] == by_tap(TWIN['scales'])


@pytest.mark.slow
def test_the_resumed_run_ends_like_its_uninterrupted_twin(resumed):
  trained = load_run.load_suite(resumed.path)
  meta = trained[0].meta
  for name in ('step', 'tokens_trained', 'rows_dropped'):
    assert meta['counts'][name] == TWIN['counts'][name]
  assert meta['data_digest'] == TWIN['data_digest']
  assert meta['scales'] == by_tap(TWIN['scales'])
  with np.load(FIXTURE / 'twin.npz') as stored:
    twin = dict(stored)
  ours = {
      f'{n}.{name}': value
      for n, member in enumerate(trained)
      for name, value in member.params.items()
  }
  assert ours.keys() == twin.keys()
  for name, value in twin.items():
    np.testing.assert_allclose(
        ours[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
    )


def test_the_blocks_hold_the_twins_rows_in_the_same_order(place):
  config = run_dir.RunDir('run').read_config()
  stream = job.make_job(config).stream
  scales = scales_lib.from_json({'scales': by_tap(TWIN['scales'])})
  sequences = config.stream.sequences(config.corpus.sequence_length)
  assert len(TWIN['blocks']) == config.blocks == 6
  for index, wanted in enumerate(TWIN['blocks']):
    rows = stream.loader.block(index, sequences)
    order = jax.device_get(stream.make_block(index, scales).order)
    for name, value in (('rows', rows), ('order', order)):
      data = np.ascontiguousarray(value, '<i4').tobytes()
      assert hashlib.sha256(data).hexdigest() == wanted[name], (index, name)


def test_a_resumed_runs_files_get_format_numbers(tmp_path):
  shutil.copytree(FIXTURE / 'run', tmp_path, dirs_exist_ok=True)
  directory = run_dir.RunDir(tmp_path)
  assert 'format' not in directory.read('config.json')
  with directory.claim(directory.read_config()):
    directory.write_suite(directory.read_suite())
  for name, kind in (
      ('config.json', formats.Kind.TRAIN_CONFIG),
      ('suite.json', formats.Kind.RUN_SUITE),
  ):
    now = directory.read(name)
    assert formats.stamp(kind).items() <= now.items()
    # All other fields are unchanged.
    before = json.loads((FIXTURE / 'run' / name).read_text())
    before = formats.migrate(kind, before, where=name)
    assert formats.migrate(kind, now, where=name) == before


@pytest.mark.slow
def test_the_resumed_run_is_released_and_evaluated(resumed):
  run = str(resumed.path)
  assert main.launch('release', [f'--run={run}', '--out=again']) == 0
  assert main.launch('verify', ['again']) == 0
  rows = rows_of('again/results.jsonl')
  assert_same_rows(rows, rows_of(FIXTURE / 'release' / 'results.jsonl'))
  # The digest does not include the format number.
  written = members.read_suite('again')
  assert written['run'] == members.read_suite(FIXTURE / 'release')['run']


def test_the_digest_of_the_run_is_unchanged(place):
  digest = run_digest.run_digest(run_dir.RunDir('run').read_config())
  assert digest == members.read_suite('release')['run']


def test_the_release_is_valid(place):
  assert main.launch('verify', ['release']) == 0
  assert verify.verify_release('release').members == 6
  variants = set()
  for path in members.list_members('release'):
    sae, params, config = members.load_member(place / 'release' / path)
    assert params['W_enc'].shape == (sae.d_in, 16)
    # The training config is migrated to the newest format.
    assert config['training']['layer'] == 1
    variants.add(sae.variant)
  assert variants == {'jumprelu', 'gated', 'topk'}


def test_the_release_has_the_same_evaluation(place):
  code = main.launch(
      'evaluate',
      [
          '--release=release',
          '--out=evaluated.jsonl',
          '--eval.tokens=2048',
          '--eval.delta_loss_tokens=1024',
          '--eval.pca_tokens=2048',
          '--eval.lm_sequences=8',
      ],
  )
  assert code == 0
  rows = rows_of('evaluated.jsonl')
  assert_same_rows(rows, rows_of(FIXTURE / 'evaluation.jsonl'))


def test_the_store_is_read_with_its_identity_and_rows(place):
  config = config_lib.resolve(
      {
          'store': 'store',
          'layer': 1,
          'sites': ('resid_post',),
          'lm_dtype': 'bfloat16',
          'data': 'text.jsonl',
          'corpus.sequence_length': 32,
          'stream.batch': 64,
          'stream.block_positions': 256,
          'stream.logical_shards': 8,
          'stream.lm_sequences': 8,
          'stream.scale_tokens': 256,
          'tokens': 512,
      }
  )
  manifest = record.read_manifest(FIXTURE / 'store')[0]
  wanted = record.identity(config, dtype='bfloat16')
  assert record.differences(record.stored_identity(manifest), wanted) == []
  source = job.make_job(config).stream
  assert isinstance(source, store.Stored)
  scales = source.estimate_scales()
  stored = json.loads((FIXTURE / 'store' / 'manifest.json').read_text())
  assert lm.to_json_keys(scales) == by_tap(stored['scales'])
  # Reading a block verifies its rows with the digests in the store.
  kept = [
      int(jax.device_get(source.make_block(index, scales).keep).sum())
      for index in range(2)
  ]
  assert sum(kept) == manifest['kept']


def test_a_later_version_does_not_harvest_again(place, capsys, monkeypatch):
  monkeypatch.setattr(jumprelu, '__version__', '7.1.0')
  flags = [
      '--store=store',
      '--layer=1',
      '--sites=resid_post',
      '--lm_dtype=bfloat16',
      '--data=text.jsonl',
      '--corpus.sequence_length=32',
      '--stream.batch=64',
      '--stream.block_positions=256',
      '--stream.logical_shards=8',
      '--stream.lm_sequences=8',
      '--stream.scale_tokens=256',
      '--tokens=512',
  ]
  assert main.launch('harvest', flags) == 0
  assert 'complete' in capsys.readouterr().out


@pytest.mark.parametrize(
    'file, command',
    [
        ('run/config.json', ['release', '--run=run', '--out=new']),
        ('release/suite.json', ['evaluate', 'release', '--out=x.jsonl']),
        ('release/suite.json', ['verify', 'release']),
    ],
)
def test_commands_refuse_newer_files_in_one_line_with_exit_code_65(
    file, command, tmp_path, monkeypatch, capsys
):
  shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  path = tmp_path / file
  newer = {'format': 99, 'writer': '7.1.0'}
  path.write_text(json.dumps(json.loads(path.read_text()) | newer))
  assert main.launch(command[0], command[1:]) == errors.DataError.exit_code
  message = capsys.readouterr().err
  assert f'{file}: a ' in message and 'install jumprelu >= 7.1.0' in message
  assert len(message.splitlines()) == 1


def test_a_renamed_field_is_read_in_runs_checkpoints_and_members(
    tmp_path, monkeypatch
):
  shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  wanted = run_dir.RunDir('run').read_config()
  name = 'variants'

  def rename(config):
    # In the older format, the field `variants` was called `kinds`.
    return {
        name if field == 'kinds' else field: value
        for field, value in config.items()
    }

  def with_old_name(path, *fields):
    value = json.loads(path.read_text())
    part = value
    for field in fields:
      part = part[field]
    part['kinds'] = part.pop(name)
    path.write_text(json.dumps(value))

  table = formats.MIGRATIONS[formats.Kind.TRAIN_CONFIG]
  table = table | {len(table) + 1: rename}
  monkeypatch.setitem(formats.MIGRATIONS, formats.Kind.TRAIN_CONFIG, table)
  with_old_name(tmp_path / 'run' / 'config.json')
  assert run_dir.RunDir('run').read_config() == wanted
  path = tmp_path / 'release' / members.list_members('release')[0]
  with_old_name(path / 'config.json', 'training')
  training = members.load_member(path)[2]['training']
  assert training == json.loads(config_lib.to_json(wanted))
