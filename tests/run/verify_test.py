"""`jumprelu verify DIR`: exit 0 and a summary, or exit 65 and one line."""

import pytest

from jumprelu.run import main
from tests import small_release


@pytest.fixture(scope='module')
def out(tmp_path_factory):
  return small_release.write(tmp_path_factory.mktemp('verify') / 'release')


def test_a_sound_release_exits_0_with_a_summary(out, capsys):
  assert main.main(['verify', str(out)]) == 0
  assert '3 members, 34 latents' in capsys.readouterr().out
  assert main.main(['verify', f'--release={out}']) == 0


def test_a_fault_exits_65_and_is_named_in_one_line(out, capsys):
  path = out / small_release.FOLDER / 'params.npz'
  sound = path.read_bytes()
  path.write_bytes(sound[:100])
  try:
    assert main.main(['verify', str(out)]) == 65
  finally:
    path.write_bytes(sound)
  captured = capsys.readouterr()
  assert captured.err.count('\n') == 1
  assert f'{small_release.FOLDER}/params.npz' in captured.err
  assert not captured.out


def test_no_directory_is_missing_input(tmp_path, capsys):
  assert main.main(['verify', str(tmp_path / 'nowhere')]) == 66
  assert 'nowhere' in capsys.readouterr().err


def test_a_missing_argument_is_named(capsys):
  assert main.main(['verify']) == 2
  assert 'use jumprelu verify DIR' in capsys.readouterr().err
