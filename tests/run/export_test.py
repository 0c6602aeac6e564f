"""`jumprelu export`: folders for other tools, refusals in one line."""

import json

import pytest

from jumprelu.run import main
from tests import small_release
from tests.release.formats import folders

COMPLETE = ('--release=releases/a', '--out=exports/a')


@pytest.fixture(scope='module')
def release(tmp_path_factory):
  return small_release.write(tmp_path_factory.mktemp('export') / 'release')


def test_all_members_are_exported_and_read_again(release, tmp_path, capsys):
  out = tmp_path / 'saelens'
  arguments = ['export', str(release), '--to=saelens', f'--out={out}']
  assert main.main(arguments) == 0
  printed = capsys.readouterr().out
  assert 'Warning: gemma2_nano is no released model' in printed
  assert printed.endswith(f'{out}: 3 SAEs in the format saelens\n')
  files = sorted(path.parent for path in out.rglob('cfg.json'))
  assert len(files) == 3
  config = json.loads((out / small_release.FOLDER / 'cfg.json').read_text())
  assert config['metadata']['jumprelu']['seed'] == 0
  # An export is a folder of SAEs, from which the others can be made.
  arguments = [
      'export', f'--release={out}', '--to=dictionary_learning',
      '--members=resid_post', '--model=gemma2_nano', f'--out={tmp_path / "dl"}',
  ]  # fmt: skip
  assert main.main(arguments) == 0
  assert len(list((tmp_path / 'dl').rglob('ae.pt'))) == 2


def test_a_refusal_is_one_line_and_leaves_nothing(release, tmp_path, capsys):
  arguments = ['export', str(release), '--to=dictionary_learning']
  assert main.main([*arguments, f'--out={tmp_path / "out"}']) == 2
  printed = capsys.readouterr().err
  assert printed.count('\n') == 1
  assert 'transcoder/layer_2/width_10/average_l0_4: the library' in printed
  assert not list(tmp_path.iterdir())


def test_the_upload_command_is_printed_and_nothing_is_uploaded(
    release, tmp_path, capsys
):
  out = tmp_path / 'hub'
  arguments = ['export', str(release), '--to=huggingface', f'--out={out}']
  assert main.main([*arguments, '--repository=me/suite']) == 0
  printed = capsys.readouterr().out
  assert f'upload it with: hf upload me/suite {out}\n' in printed
  assert main.main(['verify', str(out)]) == 0
  assert main.main(arguments) == 2
  assert 'is a release, which holds only' in capsys.readouterr().err
  arguments[-1] = f'--out={tmp_path / "other"}'
  assert main.main([*arguments, '--members=resid']) == 2
  assert 'copies the whole release' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments, reason',
    [
        ([], '--release is needed; --to is needed; --out is needed'),
        (
            [*COMPLETE, '--to=sealens'],
            '--to=sealens: unknown format (did you mean saelens?)',
        ),
        (
            [*COMPLETE, '--to=delphi'],
            '--to=delphi: needs --features=DIR, which jumprelu features writes',
        ),
        (
            [*COMPLETE, '--to=saelens', '--results=a.jsonl'],
            '--results: only concerns --to=saebench; omit the flag',
        ),
    ],
)
def test_missing_and_wrong_flags_are_named(arguments, reason, capsys):
  assert main.main(['export', *arguments]) == 2
  assert reason in capsys.readouterr().err


def test_an_output_inside_the_release_is_refused(release, capsys):
  arguments = ['export', str(release), '--to=saelens']
  assert main.main([*arguments, f'--out={release / "saelens"}']) == 2
  assert 'which holds only what its suite.json lists' in capsys.readouterr().err


def test_flags_complete_the_origin_of_published_saes(tmp_path, capsys):
  folders.gemma_scope(tmp_path / 'sae', folders.arrays())
  arguments = [
      'export', str(tmp_path / 'sae'), '--to=saelens', f'--out={tmp_path / "out"}',
  ]  # fmt: skip
  assert main.main(arguments) == 2
  assert 'set --model, --layer, --site' in capsys.readouterr().err
  flags = ['--model=gemma2_2b', '--layer=3', '--site=mlp_out']
  assert main.main([*arguments, *flags]) == 0
  config = json.loads((tmp_path / 'out/sae/cfg.json').read_text())
  assert config['metadata']['hook_name'] == 'blocks.3.hook_mlp_out'
