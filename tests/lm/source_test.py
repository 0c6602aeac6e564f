"""The values of --model: known names and folders; others are refused."""

import dataclasses
import json

import pytest

from jumprelu import errors, lm
from jumprelu.run import main
from jumprelu.training import config as config_lib
from jumprelu.training import job
from tests.lm import huggingface_folders

# The values of `_FIELDS` in the config.json of the released models.
_RELEASED = {
    'gemma2_2b': (2304, 9216, 8, 4, 256, 26, 256),
    'gemma2_9b': (3584, 14336, 16, 8, 256, 42, 256),
    'gemma2_27b': (4608, 36864, 32, 16, 128, 46, 144),
}
_FIELDS = (
    'hidden_size',
    'intermediate_size',
    'num_attention_heads',
    'num_key_value_heads',
    'head_dim',
    'num_hidden_layers',
    'query_pre_attn_scalar',
)


def released(name, **changes):
  sizes = dict(zip(_FIELDS, _RELEASED[name], strict=True))
  other = {
      'vocab_size': 256_000,
      'sliding_window': 4096,
      'max_position_embeddings': 8192,
  }
  return huggingface_folders.CONFIGS['2b'] | sizes | other | changes


def write_config(folder, fields):
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(fields))
  return folder


@pytest.fixture
def models(tmp_path, monkeypatch):
  monkeypatch.setenv('JUMPRELU_MODELS', str(tmp_path / 'models'))
  return tmp_path / 'models'


@pytest.mark.parametrize('name', _RELEASED)
@pytest.mark.parametrize('suffix', ['', '_it'])
def test_known_shapes_equal_the_released_configs(models, name, suffix):
  from jumprelu.lm import source

  write_config(models / (name + suffix), released(name))
  result = source.find(name + suffix)
  assert result.path == models / (name + suffix)
  assert result.config.name == name + suffix
  # Hugging Face's embedding has only the tokenizer's rows.
  assert result.config.vocab == 256_000
  assert lm.get_config(name + suffix).vocab == 256_128


def test_another_model_in_the_folder_of_a_known_one_is_refused(models):
  write_config(models / 'gemma2_2b', released('gemma2_9b'))
  with pytest.raises(errors.DataError, match='not gemma2_2b: d_model is 3584'):
    lm.load('gemma2_2b')


def test_missing_weights_are_reported_before_a_run_directory_is_made(
    models, tmp_path, capsys
):
  argv = ['--model=gemma2_2b', '--layer=12', f'--out={tmp_path / "run"}']
  assert main.launch('train', argv) == 66
  assert 'no weights at' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_the_error_for_missing_weights_names_source_and_folder(models, capsys):
  for name, repository in (
      ('gemma2_2b', 'google/gemma-2-2b from'),
      ('gemma2_27b_it', 'google/gemma-2-27b-it from'),
  ):
    argv = [f'--model={name}', '--layer=12', '--out=none.npz', '--text=none']
    assert main.launch('harvest', argv) == 66
    error = capsys.readouterr().err
    for words in (repository, 'Kaggle', str(models / name), '--model=DIR'):
      assert words in error
    assert error.count('\n') == 1


def test_shapes_of_known_models_need_no_weights(models):
  config = config_lib.resolve({'model': 'gemma2_27b', 'layer': 45})
  assert config.model == 'gemma2_27b'
  with pytest.raises(errors.UserError, match='has layers 0 to 45'):
    config_lib.resolve({'model': 'gemma2_27b', 'layer': 46})


def test_unknown_names_and_folders_have_their_own_exit_codes(tmp_path, capsys):
  for model, code, words in (
      ('gemma2_3b', 2, 'gemma2_2b'),
      ('gemma-2-2b', 2, 'did you mean gemma2_2b?); use the folder'),
      ('Gemma-2-9b-it', 2, 'did you mean gemma2_9b_it?'),
      ('google/gemma-2-2b', 66, 'did you mean gemma2_2b?); known names'),
      ('google/gemma-7b', 66, 'gemma2_nano, gemma2_2b, gemma2_2b_it'),
      ('nowhere/gemma', 66, 'no such folder'),
      ('./gemma2_3b', 66, 'no such folder'),
      (str(tmp_path), 66, 'no model in this folder'),
  ):
    argv = ['--out=none', f'--model={model}', '--layer=0']
    assert main.launch('train', argv) == code
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1


def test_a_config_keeps_the_folder_as_written(tmp_path):
  write_config(tmp_path / 'mine', huggingface_folders.CONFIGS['2b'])
  config = config_lib.resolve({'model': f'{tmp_path}/mine', 'layer': 2})
  assert config.model == f'{tmp_path}/mine'
  assert config_lib.from_json(config_lib.to_json(config)) == config
  with pytest.raises(errors.UserError, match='has layers 0 to 2'):
    config_lib.resolve({'model': f'{tmp_path}/mine', 'layer': 3})


def test_a_config_is_valid_without_the_folder_of_its_model(
    tmp_path, monkeypatch
):
  folder = tmp_path / 'mine'
  write_config(folder, huggingface_folders.CONFIGS['2b'])
  config = config_lib.resolve({'model': str(folder), 'layer': 2})
  text = config_lib.to_json(config)
  (folder / 'config.json').unlink()
  monkeypatch.setattr(
      lm.source, 'find', lambda model: pytest.fail('reads the folder')
  )
  assert config_lib.from_json(text) == config
  assert dataclasses.replace(config, tokens=10**6).model == str(folder)
  with pytest.raises(errors.UserError, match='layer -1 is out of range'):
    dataclasses.replace(config, layer=-1)


def test_a_run_of_an_unresolved_config_checks_its_model(tmp_path):
  write_config(tmp_path / 'mine', huggingface_folders.CONFIGS['2b'])
  config = config_lib.TrainConfig(model=str(tmp_path / 'mine'), layer=3)
  with pytest.raises(errors.UserError, match='has layers 0 to 2'):
    job.make_job(config)
  with pytest.raises(errors.MissingInputError, match='no such folder'):
    job.make_job(dataclasses.replace(config, model='./nowhere'))


def test_a_wrong_layer_of_a_folder_is_reported_with_the_other_problems(
    tmp_path,
):
  write_config(tmp_path / 'mine', huggingface_folders.CONFIGS['2b'])
  with pytest.raises(errors.UserError, match='tokens is 1.*layers 0 to 2'):
    config_lib.resolve({'model': f'{tmp_path}/mine', 'layer': 9, 'tokens': 1})


def test_a_cache_of_a_repository_and_an_adapter_are_named(tmp_path):
  cache = tmp_path / 'models--google--gemma-2-2b'
  (cache / 'snapshots' / 'c0ffee').mkdir(parents=True)
  with pytest.raises(errors.UserError, match='--model=.*/snapshots/c0ffee'):
    lm.get_config(str(cache))
  (tmp_path / 'adapter_config.json').write_text('{}')
  with pytest.raises(errors.UserError, match='merge it into its base model'):
    lm.get_config(str(tmp_path))
