"""The console script: exit codes, one-line errors, help."""

import io
import os
import subprocess
import sys
import types

from absl import flags
import pytest

import jumprelu
from jumprelu import errors
from jumprelu.run import main


def _command(monkeypatch, run, *, positional=None):
  """Installs a command `toy` whose function is `run`."""
  module = types.ModuleType('jumprelu.run.toy', 'Plays.\n\n  jumprelu toy')

  def define_flags(flag_values):
    flags.DEFINE_string(
        'out',
        'here',
        'Where to write.',
        flag_values=flag_values,
        required=False,
    )
    flags.DEFINE_integer('n', 3, 'How often.', flag_values=flag_values)

  module.define_flags = define_flags
  module.run = run
  if positional:
    module.POSITIONAL = positional
  monkeypatch.setitem(sys.modules, 'jumprelu.run.toy', module)


def _fails_with(error):
  def run(flag_values):
    del flag_values
    raise error

  return run


def _launch(capsys, *argv):
  code = main.launch('toy', argv)
  return code, capsys.readouterr()


def test_a_command_that_returns_nothing_exits_0(monkeypatch, capsys):
  seen = {}
  _command(monkeypatch, lambda fv: seen.update(out=fv.out, n=fv.n))
  code, _ = _launch(capsys, '--out=there', '--n', '5')
  assert code == 0
  assert seen == {'out': 'there', 'n': 5}


def test_the_exit_code_of_a_command_is_kept(monkeypatch, capsys):
  _command(monkeypatch, lambda fv: 42)
  assert _launch(capsys)[0] == 42


@pytest.mark.parametrize(
    'error, code',
    [
        (errors.UserError('no'), 2),
        (errors.DataError('no'), 65),
        (errors.MissingInputError('no'), 66),
        (errors.NumericalError('no'), 70),
        (PermissionError(13, 'no', '/x'), 2),
        (NotADirectoryError(20, 'no', '/x'), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_expected_error_is_one_line_with_its_exit_code(
    monkeypatch, capsys, error, code
):
  _command(monkeypatch, _fails_with(error))
  exit_code, output = _launch(capsys)
  assert exit_code == code
  assert output.err.startswith('jumprelu toy: ')
  assert output.err.count('\n') == 1
  assert output.out == ''


def test_a_message_of_several_lines_is_joined_to_one_line(monkeypatch, capsys):
  _command(monkeypatch, _fails_with(errors.UserError('first\n  second')))
  assert _launch(capsys)[1].err == 'jumprelu toy: first second\n'


def test_debug_shows_the_traceback_too(monkeypatch, capsys):
  _command(monkeypatch, _fails_with(errors.UserError('no')))
  code, output = _launch(capsys, '--debug')
  assert code == 2
  assert 'Traceback' in output.err


def test_a_bug_keeps_its_traceback(monkeypatch, capsys):
  _command(monkeypatch, _fails_with(ZeroDivisionError()))
  with pytest.raises(ZeroDivisionError):
    _launch(capsys)


@pytest.mark.parametrize(
    'error',
    [
        OSError(28, 'No space left on device', 'folder/file'),
        RuntimeError('write() failed: No space left on device'),
    ],
)
def test_a_full_disk_is_one_line_with_a_code_for_another_try(
    monkeypatch, capsys, error
):
  _command(monkeypatch, _fails_with(error))
  code, output = _launch(capsys)
  assert code == 75 and output.err.count('\n') == 1
  assert 'the disk is full' in output.err and 'make room' in output.err
  assert (getattr(error, 'filename', None) or 'disk') in output.err


def test_a_tilde_is_expanded_in_every_flag_of_a_path(monkeypatch, capsys):
  monkeypatch.setenv('HOME', '/home/somebody')
  seen = []
  _command(monkeypatch, lambda fv: seen.append(fv.out))
  for path in ('~/runs/a', '~', 'a~/b', '~nobody_here/b'):
    assert _launch(capsys, f'--out={path}')[0] == 0
  assert seen == [
      '/home/somebody/runs/a',
      '/home/somebody',
      'a~/b',
      '~nobody_here/b',
  ]


def test_an_interrupt_during_imports_is_one_line(monkeypatch, capsys):
  def interrupted(unused_name):
    raise KeyboardInterrupt

  monkeypatch.setattr(main.importlib, 'import_module', interrupted)
  code, output = _launch(capsys)
  assert (code, output.err) == (130, 'jumprelu toy: interrupted\n')


class _Closed(io.StringIO):

  def __init__(self, error):
    super().__init__()
    self._error = error

  def write(self, text):
    raise self._error


@pytest.mark.parametrize(
    'error',
    [
        BrokenPipeError(32, 'Broken pipe'),
        OSError(5, 'Input/output error'),  # of a terminal
    ],
)
def test_a_closed_pipe_or_terminal_does_not_end_a_command(monkeypatch, error):
  done = []

  def run(unused_flags):
    for stream in (sys.stdout, sys.stderr):
      print('a line', file=stream, flush=True)
    done.append(True)
    return 0

  _command(monkeypatch, run)
  monkeypatch.setattr(sys, 'stdout', _Closed(error))
  monkeypatch.setattr(sys, 'stderr', _Closed(error))
  assert main.launch('toy', []) == 0 and done


@pytest.mark.parametrize(
    'argv, message',
    [
        (['--outt=x'], 'unknown flag --outt (did you mean out?)'),
        (['--outt=x', '--m=1'], 'unknown flag --m'),
        (['--n=many'], "'many'"),
        (['--n'], 'Missing value for flag'),
        (['there'], "unexpected argument 'there'"),
    ],
)
def test_bad_arguments_exit_2_without_running(
    monkeypatch, capsys, argv, message
):
  _command(monkeypatch, _fails_with(AssertionError('ran')))
  code, output = _launch(capsys, *argv)
  assert code == 2
  assert message in output.err
  assert output.err.count('\n') == 1


def test_one_bare_argument_sets_the_positional_flag(monkeypatch, capsys):
  seen = {}
  _command(monkeypatch, lambda fv: seen.update(out=fv.out), positional='out')
  assert _launch(capsys, 'there')[0] == 0
  assert seen == {'out': 'there'}
  assert _launch(capsys, 'there', 'twice')[0] == 2


def test_help_shows_the_docstring_and_only_our_flags(monkeypatch, capsys):
  _command(monkeypatch, _fails_with(AssertionError('ran')))
  code, output = _launch(capsys, '--help', '--nonsense')
  assert code == 0
  assert output.out.startswith('jumprelu toy: Plays.')
  assert '  --out=TEXT\n      Where to write. (default: here)\n' in output.out
  assert '  --n=INT\n      How often. (default: 3)\n' in output.out
  assert '\nflags:\n' in output.out
  assert '\nflags of every command:\n  --help[=PART]\n' in output.out
  assert '--[no]debug' in output.out
  assert 'logtostderr' not in output.out
  assert max(map(len, output.out.splitlines())) <= 80


def test_every_command_is_listed_with_its_purpose(capsys):
  assert main.main(['--help']) == 0
  text = capsys.readouterr().out
  for command in main.COMMANDS:
    (line,) = [x for x in text.splitlines() if x.split()[:1] == [command]]
    assert len(line.split()) > 3, f'{command} has no summary'


def test_version_is_that_of_the_package(capsys):
  assert main.main(['--version']) == 0
  assert capsys.readouterr().out == f'jumprelu {jumprelu.__version__}\n'


@pytest.mark.parametrize(
    'command, flag, wanted',
    [
        ('train', 'l0', 'target_l0'),
        ('train', 'lambda', 'sparsity_coefficients'),
        ('train', 'l1_coefficient', 'sparsity_coefficients'),
        ('train', 'lr', 'optim.learning_rate'),
        ('train', 'optim.lr', 'optim.learning_rate'),
        ('train', 'learning_rate', 'optim.learning_rate'),
        ('train', 'batch_size', 'stream.batch'),
        ('train', 'batch-size', 'stream.batch'),
        ('train', 'b2', 'optim.b2'),
        ('train', 'widht', 'widths'),
        ('plan', 'lr', 'optim.learning_rate'),
        ('evaluate', 'batch_size', 'eval.lm_sequences'),
        ('harvest', 'batch_size', 'batch'),
    ],
)
def test_a_common_name_of_a_flag_is_answered_with_ours(
    capsys, command, flag, wanted
):
  assert main.main([command, f'--{flag}=1']) == 2
  error = capsys.readouterr().err
  assert f'unknown flag --{flag} (did you mean {wanted}?)' in error


def test_an_unknown_command_gets_a_suggestion(capsys):
  assert main.main(['trian']) == 2
  assert "'trian' (did you mean train?)" in capsys.readouterr().err


def test_no_command_exits_2(capsys):
  assert main.main([]) == 2
  assert 'no command: use demo' in capsys.readouterr().err


# Compiles a program and prints the number of hits of the compilation cache.
_COMPILE = """
from jumprelu.run import main
main.main(['verify', 'nowhere'])
import jax
hits = []
jax.monitoring.register_event_listener(
    lambda name, **_: hits.append(name) if name.endswith('cache_hits') else None
)
jax.jit(lambda x: x + 1)(1.0).block_until_ready()
print(len(hits))
"""


def test_compiled_programs_are_kept_for_the_next_start(tmp_path):
  env = {k: v for k, v in os.environ.items() if 'CACHE' not in k}
  # Fast compilations are stored too, because JAX's settings override ours.
  env['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  env['JUMPRELU_CACHE'] = str(tmp_path)

  def hits(**more):
    done = subprocess.run(
        [sys.executable, '-P', '-c', _COMPILE],
        env=env | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout)

  assert hits() == 0
  assert list((tmp_path / 'compiled').iterdir())
  assert hits() > 0
  assert hits(JAX_ENABLE_COMPILATION_CACHE='false') == 0


def test_the_process_exits_with_the_code_and_one_line():
  done = subprocess.run(
      [sys.executable, '-m', 'jumprelu.run.main', 'trian'],
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1


def test_a_loop_of_links_and_a_long_name_are_one_line(
    monkeypatch, capsys, tmp_path
):
  loop = tmp_path / 'loop'
  loop.symlink_to('loop')
  for path in (loop, tmp_path / ('a' * 300)):
    _command(monkeypatch, lambda fv, path=path: path.read_bytes())
    code, output = _launch(capsys)
    assert code == errors.UserError.exit_code
    assert output.err.count('\n') == 1 and path.name in output.err
