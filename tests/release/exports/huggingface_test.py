"""The folder for Hugging Face is a sound release with a card for the Hub."""

import pytest

from jumprelu import errors
from jumprelu.release import exports, verify
from jumprelu.release.exports import huggingface
from tests import small_release


@pytest.fixture(scope='module')
def release(tmp_path_factory):
  folder = tmp_path_factory.mktemp('hub') / 'release'
  provenance = small_release.provenance(model='gemma2_2b')
  return small_release.write(folder, provenance=provenance)


def write(release, out, repository='me/suite'):
  with exports.new_folder(out) as new:
    return huggingface.write(release, new, repository=repository)


def test_the_copy_passes_verification_and_names_the_base_model(
    release, tmp_path
):
  assert not write(release, tmp_path / 'out')
  verify.verify_release(tmp_path / 'out')
  card = (tmp_path / 'out' / 'README.md').read_text()
  _, front, text = card.split('---\n', 2)
  assert front.splitlines()[:1] == ['license: apache-2.0']
  assert 'base_model: google/gemma-2-2b' in front.splitlines()
  assert 'library_name: jumprelu' in front.splitlines()
  original = (release / 'README.md').read_text().split('---\n', 2)[2]
  before, section, after = text.partition('## Download one\n')
  assert f"hf_hub_download('me/suite', '{small_release.FOLDER}" in after
  assert before + after[after.index('## Load one') :] == original


def test_the_code_in_the_card_is_python(release, tmp_path):
  write(release, tmp_path / 'out')
  card = (tmp_path / 'out' / 'README.md').read_text()
  blocks = card.split('```python\n')[1:]
  assert len(blocks) >= 3
  for block in blocks:
    compile(block.split('```')[0], 'card', 'exec')


def test_a_model_that_is_not_on_the_hub_is_a_warning(tmp_path):
  release = small_release.write(tmp_path / 'release')
  (warning,) = write(release, tmp_path / 'out')
  assert 'gemma2_nano is not on the Hub' in warning
  assert 'base_model' not in (tmp_path / 'out' / 'README.md').read_text()


def test_wrong_names_and_folders_are_refused(release, tmp_path):
  with pytest.raises(errors.UserError, match='--repository=suite: wanted'):
    write(release, tmp_path / 'out', repository='suite')
  with pytest.raises(errors.MissingInputError):
    write(tmp_path, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_the_upload_command_quotes_the_folder():
  command = huggingface.upload_command('my folder', repository='me/suite')
  assert command == "hf upload me/suite 'my folder'"
