"""Runs passed as releases, and releases passed as runs: one line, exit 2."""

import pathlib

import pytest

from jumprelu import errors
from jumprelu.files import folder_kinds
from jumprelu.release import members, verify
from jumprelu.run import main
from jumprelu.training import load_run, run_dir
from tests import small_release, toy_suite

MEMBER = small_release.FOLDER


@pytest.fixture
def demo(tmp_path, monkeypatch):
  """Returns a folder with a run and a release, as the demo writes it."""
  monkeypatch.chdir(tmp_path)
  run = run_dir.RunDir(tmp_path / 'demo' / 'run')
  with run.claim(toy_suite.make_config()):
    run.write_suite({'scales': {}, 'data_digest': '', 'members': []})
  small_release.write(tmp_path / 'demo' / 'release')
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'demo/run').rename(tmp_path / 'runs/a')
  run = run_dir.RunDir(tmp_path / 'demo' / 'run')
  with run.claim(toy_suite.make_config()):
    run.write_suite({'scales': {}, 'data_digest': '', 'members': []})
  return tmp_path / 'demo'


def files_of(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


MAKE = 'jumprelu release --run={} --out=DIR'


@pytest.mark.parametrize(
    'argv, words',
    [
        (['verify', 'demo/run'], f'a run, not a release; make one with: {MAKE.format("demo/run")}'),
        (['verify', 'demo'], 'demo: no release; there is one in demo/release'),
        (['verify', 'runs'], f'there is a run in runs/a; make one with: {MAKE.format("runs/a")}'),
        (['verify', f'demo/release/{MEMBER}'], 'a part of the release'),
        (['evaluate', 'demo/run', '--out=a.jsonl'], 'a run, not a release'),
        (['evaluate', 'runs', '--out=a.jsonl'], 'there is a run in runs/a'),
        (['release', '--run=demo/release', '--out=b'], 'a release, not a run'),
        (['release', '--run=demo', '--out=b'], 'demo: no run; there is one in'),
        (['status', 'demo/release'], 'a release, not a run'),
        (['train', '--out=demo/release'], 'demo/release is a release'),
        (['train', '--out=demo/release/resid_post'], 'demo/release is a release'),
        (['demo', '--out=demo/release'], 'demo/release is a release'),
        (['harvest', '--layer=1', '--text=none', '--out=demo/release/a.npz'], 'demo/release is a release'),
        (['harvest', '--layer=1', '--store=demo/release/acts'], 'demo/release is a release'),
        (['evaluate', 'demo/release', '--out=demo/release/a.jsonl'], 'demo/release is a release'),
        (['release', '--run=demo/run', '--out=demo/run'], 'must differ from --run'),
    ],
)  # fmt: skip
def test_commands_name_the_mistake_and_write_nothing(demo, argv, words, capsys):
  before = files_of(demo)
  assert main.main(argv) == 2
  error = capsys.readouterr().err
  assert words in error and error.count('\n') == 1, error
  assert files_of(demo) == before
  assert sorted(p.name for p in demo.parent.iterdir()) == ['demo', 'runs']


@pytest.mark.parametrize(
    'read, path, words',
    [
        (members.load_member, 'demo/run', 'a run, not a release'),
        (members.load_member, 'demo/release', f'such as demo/release/{MEMBER}'),
        (members.load_member, 'demo', 'there is one in demo/release'),
        (members.list_members, 'demo/run', 'a run, not a release'),
        (members.list_members, 'demo', 'there is one in demo/release'),
        (verify.verify_release, 'demo/run', 'a run, not a release'),
        (load_run.load_suite, 'demo/release', 'a release, not a run'),
        (load_run.load_suite, f'demo/release/{MEMBER}', 'a part of the release'),
    ],
)  # fmt: skip
def test_calls_name_the_mistake(demo, read, path, words):
  with pytest.raises(errors.UserError, match=words) as caught:
    read(path)
  assert caught.value.exit_code == 2


def test_a_release_below_another_is_refused(demo):
  release = demo / 'release'
  before = files_of(demo)
  with pytest.raises(errors.UserError, match='demo/release is a release'):
    small_release.write(release / 'inner')
  assert files_of(demo) == before
  # The release itself may be replaced.
  small_release.write(release)


def test_an_unrelated_suite_json_above_is_no_release(demo):
  pathlib.Path('suite.json').write_text('{"members": []}')
  folder_kinds.refuse_inside_release('out', demo)
  pathlib.Path('suite.json').write_text('[1')
  folder_kinds.refuse_inside_release('out', demo)
