"""The launcher's command line: rendering, applying and local training."""

import json
import sys

import pytest
import yaml

from launch import main
from tests import small_run
from tests.launch import small_launch


def _run(capsys, *flags, **changes):
  code = main.main(small_launch.argv(*flags, **changes))
  return code, capsys.readouterr()


def test_rendering_is_the_default_and_returns_one_document_per_layer(capsys):
  code, output = _run(capsys, layers='0-25')
  assert code == 0
  names = [doc['metadata']['name'] for doc in yaml.safe_load_all(output.out)]
  assert names == [f'scope-2b-l{layer:02d}' for layer in range(26)]


def test_documents_may_become_files(capsys, tmp_path):
  folder = tmp_path / 'a' / 'b'
  code, output = _run(capsys, layers='3,4', render_dir=folder)
  assert code == 0 and '2 files' in output.out
  for layer in (3, 4):
    text = (folder / f'scope-2b-l{layer:02d}.yaml').read_text('utf-8')
    made = small_launch.make_spec(layers='3,4')
    assert text == main.jobset.render(made, layer)


def test_help_describes_the_program_and_its_flags(capsys):
  assert main.main(['--help']) == 0
  text = capsys.readouterr().out
  assert text.startswith('python -m launch.main: Renders')
  for words in ('--run=TEXT', '--[no]spot', 'jobset|queued_resource|local'):
    assert words in text


@pytest.mark.parametrize(
    'flags, changes, message',
    [
        (
            ('--modle=gemma2_2b',),
            {},
            'unknown flag --modle (did you mean model',
        ),
        (('--widths=many',), {}, "--widths: 'many' is not an integer"),
        (
            ('--model=gemma2_2b',),
            {'layers': '20-26'},
            'layer 26 is out of range',
        ),
        (('--sites=resid_pots',), {}, 'did you mean resid_post'),
        (('stray',), {}, "unexpected argument 'stray'"),
        ((), {'targt': 'local'}, 'unknown flag --targt (did you mean target'),
        ((), {'target': 'pods'}, '--target'),
        ((), {'max_restarts': 'few'}, '--max_restarts'),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_2(capsys, flags, changes, message):
  code, output = _run(capsys, *flags, **changes)
  assert code == 2 and output.out == ''
  assert message in output.err
  assert output.err.count('\n') == 1


def test_problems_of_both_command_lines_are_reported_in_one_line(capsys):
  code, output = _run(capsys, '--modle=a', run='B', image='c')
  assert code == 2 and output.err.count('\n') == 1
  for words in ('--run=B', '--image=c', '--modle'):
    assert words in output.err


def test_a_model_missing_on_this_computer_is_left_to_the_pod(capsys):
  code, output = _run(capsys, '--model=/mnt/none/gemma', volumes='a:/mnt')
  assert code == 0
  (manifest,) = yaml.safe_load_all(output.out)
  assert '--model=/mnt/none/gemma' in json.dumps(manifest)
  assert '--model=/mnt/none/gemma: is not on this computer' in output.err


def test_apply_passes_all_manifests_to_one_kubectl_call(
    capsys, tmp_path, monkeypatch
):
  calls = small_launch.install_fakes(tmp_path, monkeypatch, 'kubectl')
  code, _ = _run(capsys, layers='0-25', mode='apply', context='prod')
  assert code == 0
  (call,) = calls()
  assert call['argv'] == ['--context=prod', 'apply', '--filename=-']
  made = small_launch.make_spec(layers='0-25')
  expected = [main.jobset.make_jobset(made, layer) for layer in range(26)]
  assert list(yaml.safe_load_all(call['text'])) == expected


def test_apply_requests_each_slice_in_the_folder_of_its_script(
    capsys, tmp_path, monkeypatch
):
  calls = small_launch.install_fakes(tmp_path, monkeypatch, 'gcloud')
  code, _ = _run(capsys, layers='1,2', target='queued_resource', mode='apply')
  assert code == 0
  made = small_launch.make_spec(layers='1,2', target='queued_resource')
  assert [['gcloud', *call['argv']] for call in calls()] == [
      main.queued_resource.make_argv(made, layer) for layer in (1, 2)
  ]
  for layer, call in zip((1, 2), calls(), strict=True):
    script = main.queued_resource.render_script(made, layer)
    assert call['files'][f'scope-2b-l0{layer}.startup.sh'] == script


def test_a_refusal_stops_and_its_exit_code_is_returned(
    capsys, tmp_path, monkeypatch
):
  calls = small_launch.install_fakes(
      tmp_path, monkeypatch, 'gcloud', exit_code=5
  )
  changes = {'layers': '1,2', 'target': 'queued_resource', 'mode': 'apply'}
  assert _run(capsys, **changes)[0] == 5
  assert len(calls()) == 1


def test_a_missing_program_is_reported_in_one_line(
    capsys, tmp_path, monkeypatch
):
  monkeypatch.setenv('PATH', str(tmp_path))
  code, output = _run(capsys, mode='apply')
  assert code == 66
  assert 'kubectl is not on the PATH' in output.err


@pytest.mark.parametrize(
    'codes, code', [((0, 0), 0), ((42,), 42), ((0, 65), 65)]
)
def test_a_local_launch_runs_the_same_argv_layer_after_layer(
    capsys, tmp_path, monkeypatch, codes, code
):
  log = tmp_path / 'log'
  stub = tmp_path / 'python'
  stub.write_text(
      f'#!/bin/bash\necho "$JAX_PLATFORMS $*" >> {log}\n'
      f'codes=({" ".join(map(str, codes))})\n'
      f'exit ${{codes[$(($(wc -l < {log}) - 1))]}}\n'
  )
  stub.chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(stub))
  changes = {'target': 'local', 'mode': 'apply', 'layers': '3,4', 'out': 'runs'}
  assert _run(capsys, **changes)[0] == code
  made = small_launch.make_spec(target='local', layers='3,4', out='runs')
  argv = [' '.join(made.command(layer)[1:]) for layer in (3, 4)]
  expected = [f'cpu {words}' for words in argv[: len(codes)]]
  assert log.read_text().splitlines() == expected


def test_a_killed_child_has_a_shells_code(capsys, tmp_path, monkeypatch):
  stub = tmp_path / 'python'
  stub.write_text('#!/bin/bash\nkill -9 $$\n')
  stub.chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(stub))
  assert _run(capsys, target='local', mode='apply', out='a')[0] == 137


@pytest.mark.slow
def test_the_real_trainer_runs_locally_and_reports_its_status(
    capsys, tmp_path, monkeypatch
):
  from jumprelu.run import main as jumprelu_main

  config = small_run.overrides(tmp_path, steps=16)
  del config['layer']
  words = small_run.command('OUT', config)[4:]
  monkeypatch.setenv('XLA_FLAGS', '')
  options = {'run': 'tiny', 'layers': '1', 'out': str(tmp_path / 'runs')}
  changes = {'target': 'local', 'mode': 'apply', **options}
  assert _run(capsys, *words, **changes)[0] == 0
  out = tmp_path / 'runs/tiny/layer_01'
  assert small_run.checkpoints(out)[-1] == 16
  assert json.loads((out / 'config.json').read_text())['layer'] == 1
  assert jumprelu_main.main(['status', str(tmp_path / 'runs/tiny')]) == 0
  assert capsys.readouterr().out.count('done') == 1
