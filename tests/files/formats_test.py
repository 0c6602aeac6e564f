"""Format numbers: older files are migrated, newer ones are refused."""

import re

import pytest

import jumprelu
from jumprelu import errors
from jumprelu.activations.store import record
from jumprelu.activations.store import writer as writer_lib
from jumprelu.files import formats, json_files
from jumprelu.release import members
from jumprelu.training import checkpoint, load_run, run_dir
from tests import small_release, small_state, toy_suite

KINDS = list(formats.Kind)
CONFIG = formats.Kind.TRAIN_CONFIG


def renamed(value, old, new):
  """Returns `value` with a renamed field, the simplest migration."""
  return {new if name == old else name: x for name, x in value.items()}


def backend_of_path(config):
  return renamed(config, 'path', 'backend')


def migrations(monkeypatch, kind, *functions):
  """Sets the migrations of a kind, in order from format 1."""
  table = dict(enumerate(functions, 1))
  monkeypatch.setitem(formats.MIGRATIONS, kind, table)


@pytest.mark.parametrize('kind', KINDS)
def test_each_table_leads_from_format_1_to_the_newest_without_a_gap(kind):
  table = formats.MIGRATIONS[kind]
  assert list(table) == list(range(1, formats.newest(kind)))


@pytest.mark.parametrize('kind', KINDS)
def test_the_newest_format_is_read_without_changes(kind):
  value = {'layer': 1, 'scales': {'resid_post': 2.0}}
  stamped = formats.stamp(kind) | value
  assert stamped['format'] == formats.newest(kind)
  assert stamped['writer'] == jumprelu.__version__
  assert formats.migrate(kind, stamped, where='f') == value


@pytest.mark.parametrize(
    'stamp', [{}, {'format': 1}, {'format': 'jumprelu-release-1'}]
)
def test_files_without_a_number_and_old_releases_are_of_format_1(
    stamp, monkeypatch
):
  kind = formats.Kind.RELEASE_SUITE
  migrations(monkeypatch, kind, lambda x: renamed(x, 'a', 'b'))
  assert formats.migrate(kind, {'a': 1} | stamp, where='f') == {'b': 1}


def test_migrations_follow_each_other_and_start_at_the_files_format(
    monkeypatch,
):
  migrations(
      monkeypatch,
      CONFIG,
      lambda x: x | {'seen': [*x['seen'], 1]},
      lambda x: x | {'seen': [*x['seen'], 2]},
  )
  for number, seen in ((1, [1, 2]), (2, [2]), (3, [])):
    value = {'seen': [], 'format': number}
    assert formats.migrate(CONFIG, value, where='f') == {'seen': seen}


def test_a_migration_cannot_modify_the_object_that_was_read(monkeypatch):
  migrations(monkeypatch, CONFIG, lambda x: x['optim'].clear() or x)
  value = {'optim': {'b2': 0.9}}
  formats.migrate(CONFIG, value, where='f')
  assert value == {'optim': {'b2': 0.9}}


def test_the_backend_of_a_config_of_format_1_is_its_path():
  old = {'model': 'gemma2_nano', 'path': 'dense', 'layer': 2}
  new = {'model': 'gemma2_nano', 'backend': 'dense', 'layer': 2}
  # Added in formats 4 and 6.
  new |= {'init_from': '', 'layers': [], 'affine_skip': False}
  assert formats.migrate_train_config(old, where='f') == new


def test_a_field_of_the_config_is_renamed_in_all_kinds_with_a_config(
    monkeypatch,
):
  migrations(monkeypatch, CONFIG, backend_of_path)
  old, new = {'path': 'dense', 'layer': 2}, {'backend': 'dense', 'layer': 2}
  assert formats.migrate_train_config(old, where='f') == new
  for kind, field in (
      (formats.Kind.CHECKPOINT, 'config'),
      (formats.Kind.RELEASE_MEMBER, 'training'),
  ):
    today = formats.stamp(kind)
    value = today | {field: old, 'path': 'x'}
    migrated = formats.migrate(kind, value, where='f')
    assert migrated == {field: new, 'path': 'x'}
    stamped = today | {field: formats.stamp(CONFIG) | new}
    assert formats.migrate(kind, stamped, where='f') == {field: new}


@pytest.mark.parametrize(
    'kind',
    [formats.Kind.RUN_SUITE, formats.Kind.CHECKPOINT, formats.Kind.STORE],
)
def test_scales_of_format_1_are_named_with_the_layer(kind, monkeypatch):
  # The scales are migrated first, so a later name of the layer has no effect.
  migrations(monkeypatch, CONFIG, lambda x: renamed(x, 'layer', 'layers'))
  value = {
      'layer': 2,
      'config': {'layer': 2},
      'identity': {'layer': 2},
      'members': [{'site': 'transcoder'}],
      'geometry': {'widths': {'resid_post': 8, 'mlp_in': 8}},
      'scales': {'resid_post': 1.5, 'mlp_in': 2.5},
  }
  assert formats.migrate(kind, value, where='f')['scales'] == {
      'layer_2.resid_post': 1.5,
      'layer_2.mlp_in': 2.5,
  }


def test_an_error_of_a_migration_is_one_line_with_the_file(monkeypatch):
  migrations(monkeypatch, CONFIG, lambda x: {'layers': [x['layer']]})
  with pytest.raises(errors.DataError) as caught:
    formats.migrate(CONFIG, {}, where='runs/a/config.json')
  message = str(caught.value)
  assert message.startswith('runs/a/config.json: not a valid training config')
  assert "KeyError('layer')" in message and '\n' not in message


@pytest.mark.parametrize('number', [0, -1, 1.0, True, None, '2', [1]])
def test_an_invalid_format_is_refused(number):
  with pytest.raises(errors.DataError, match='is not a format of a store'):
    formats.migrate(formats.Kind.STORE, {'format': number}, where='f')


@pytest.mark.parametrize('kind', KINDS)
def test_a_newer_format_is_refused_with_its_writer_and_the_cure(kind):
  value = {'format': formats.newest(kind) + 1, 'writer': '7.1.0'}
  with pytest.raises(errors.DataError) as caught:
    formats.migrate(kind, value, where='folder/file.json')
  assert str(caught.value) == (
      f'folder/file.json: a {kind.value} of format {formats.newest(kind) + 1},'
      f' written by jumprelu 7.1.0; jumprelu {jumprelu.__version__} reads'
      f' formats up to {formats.newest(kind)}: install jumprelu >= 7.1.0'
  )


@pytest.mark.parametrize('writer', [{}, {'writer': jumprelu.__version__}])
def test_the_cure_is_never_an_installed_or_unknown_version(writer):
  with pytest.raises(errors.DataError, match='install a newer jumprelu$'):
    formats.migrate(CONFIG, {'format': 99} | writer, where='f')


# The reader of each kind of file refuses a newer format.


def refused(name):
  words = f'{re.escape(name)}: a .* of format 99, written by jumprelu 7.1.0'
  return pytest.raises(errors.DataError, match=words)


def make_newer(path, *fields):
  """Gives a file, or an object inside it, the format of a later version."""
  is_sealed = path.exists() and 'sha256_of_fields' in path.read_text()
  value = json_files.read_json(path, missing_ok=True)
  part = value
  for field in fields:
    part = part[field]
  part |= {'format': 99, 'writer': '7.1.0'}
  json_files.write_json(path, value, seal=is_sealed)


def test_a_newer_runs_config_is_refused_and_left_alone(tmp_path):
  with run_dir.RunDir(tmp_path).claim(toy_suite.make_config()):
    pass
  make_newer(tmp_path / 'config.json')
  text = (tmp_path / 'config.json').read_text()
  with refused('config.json'):
    run_dir.RunDir(tmp_path).read_config()
  with refused('config.json'):
    load_run.load_suite(tmp_path)
  with refused('config.json'):
    with run_dir.RunDir(tmp_path).claim(toy_suite.make_config()):
      pass
  assert (tmp_path / 'config.json').read_text() == text


def test_a_newer_runs_suite_is_refused(tmp_path):
  run_dir.RunDir(tmp_path).write_suite({'scales': {}})
  assert run_dir.RunDir(tmp_path).read_suite() == {'scales': {}}
  make_newer(tmp_path / 'suite.json')
  with refused('suite.json'):
    run_dir.RunDir(tmp_path).read_suite()


@pytest.mark.parametrize('newer', [(), ('config',)])
def test_a_newer_checkpoint_is_refused_and_not_set_aside(tmp_path, newer):
  directory = run_dir.RunDir(tmp_path)
  meta = formats.stamp(formats.Kind.CHECKPOINT) | {'config': {}}
  part = meta['config'] if newer else meta
  part |= {'format': 99, 'writer': '7.1.0'}
  with checkpoint.Checkpointer(
      directory.checkpoints, checkpoint.Config()
  ) as checkpointer:
    checkpointer.save(3, small_state.make_state(3), meta=meta)
    _, meta = checkpointer.latest_verified(small_state.make_state(0))
    with refused(': '.join(('checkpoints/3', *newer))):
      load_run.migrated_meta(directory.checkpoints, meta)
  assert small_state.names(directory.checkpoints) == ['3']


def test_a_newer_release_and_member_are_refused(tmp_path):
  out = small_release.write(tmp_path / 'release')
  folder = out / small_release.FOLDER
  make_newer(folder / 'config.json', 'training')
  with refused('config.json: training'):
    members.load_member(folder)
  make_newer(folder / 'config.json')
  with refused('config.json'):
    members.load_member(folder)
  make_newer(out / 'suite.json')
  with refused('suite.json'):
    members.list_members(out)


def test_a_newer_store_is_refused_complete_or_not(tmp_path):
  make_newer(tmp_path / 'progress.json')
  with refused('progress.json'):
    writer_lib.Writer(tmp_path).read_existing()
  make_newer(tmp_path / 'manifest.json')
  with refused('manifest.json'):
    record.read_manifest(tmp_path)
