"""Bad input to `jumprelu train`: one line, exit 2, and no file is changed."""

import sys

import pytest

from jumprelu.run import main
from jumprelu.run import train as train_command
from jumprelu.training import run_dir, train
from tests import toy_suite

# How the lines start that announce the phases before an error.
_PHASES = ('reading text: ', 'tokenising ', 'loading and checking ')


@pytest.fixture
def place(tmp_path, monkeypatch):
  """Returns a folder with files that users may pass by mistake."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('JUMPRELU_CACHE', str(tmp_path / 'cache'))
  (tmp_path / 'file').write_text('not a folder')
  (tmp_path / 'empty.txt').touch()
  (tmp_path / 'latin.txt').write_bytes('na\u00efve'.encode('latin-1'))
  other = run_dir.RunDir(tmp_path / 'other')
  with other.claim(toy_suite.make_config(layer=1)):
    other.write_suite({})
  return tmp_path


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--model=gpt2'], '--model=gpt2: unknown; use the folder'),
        (['--layer=4'], 'gemma2_nano has layers 0 to 3'),
        (['--sites=resid_pots'], 'did you mean resid_post?'),
        (
            ['--widths=1022', '--mesh.tensor=4', '--sites=mlp_out'],
            'width 1022 is not divisible by mesh.tensor=4; nearest: 1020 or',
        ),
        (['--sparsity_coefficients=-1e-3'], 'finite and not negative'),
        (['--data=empty.txt'], 'empty.txt: empty file'),
        (['--data=latin.txt'], 'latin.txt: not UTF-8 (byte 2 is 0xef)'),
        (['--out=other', '--layer=2'], 'layer was 1, is 2'),
        (['--out=file/run'], 'cannot write there'),
    ],
)
def test_bad_input_is_one_line_and_exit_2(flags, words, place, capsys):
  assert main.launch('train', ['--out=new', '--mesh.tensor=2', *flags]) == 2
  printed = capsys.readouterr()
  *phases, error = printed.err.splitlines()
  assert error.startswith('jumprelu train: ') and words in error, error
  # The error is one line: all lines before it announce phases of the start.
  assert all(line.startswith(_PHASES) for line in phases), printed.err
  assert not printed.out
  # The directory remains usable for the corrected command.
  assert not (place / 'new' / 'suite.json').exists()


def test_a_missing_out_is_named(capsys):
  assert main.launch('train', []) == 2
  assert '--out is needed' in capsys.readouterr().err


def test_a_store_needs_no_weights_of_the_model(place, capsys, monkeypatch):
  monkeypatch.setenv('JUMPRELU_MODELS', str(place))
  flags = ['--out=new', '--mesh.tensor=2', '--model=gemma2_2b']
  assert main.launch('train', flags) == 66
  assert 'no weights' in capsys.readouterr().err
  assert main.launch('train', [*flags, '--store=nowhere']) == 66
  error = capsys.readouterr().err
  assert 'nowhere' in error and 'no weights' not in error, error


@pytest.mark.parametrize('code', [0, 42])
def test_a_finished_run_names_the_next_command(code, capsys, monkeypatch):
  monkeypatch.setattr(
      train_command, 'train_suite', lambda *unused, **options: code
  )
  assert main.launch('train', ['--out=my runs/a/']) == code
  line = "next: jumprelu release --run='my runs/a' --out='my runs/a_release'\n"
  assert capsys.readouterr().out == ('' if code else line)


def test_the_ways_to_watch_a_run_are_flags(capsys, monkeypatch):
  seen = {}

  def train_suite(*unused, **options):
    seen.update(options)
    return 0

  monkeypatch.setattr(train_command, 'train_suite', train_suite)
  flags = ['--out=a', '--tensorboard', '--profile_steps=32']
  assert main.launch('train', flags) == 0
  expected = train.PRINTED._replace(tensorboard=True, profile_steps=32)
  assert seen['watch'] == expected


def test_tensorboard_names_its_extra(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  assert main.launch('train', ['--out=a', '--tensorboard']) == 2
  assert capsys.readouterr().err == (
      'jumprelu train: needs tensorboardX; pip install'
      " 'jumprelu[tensorboard]'\n"
  )
