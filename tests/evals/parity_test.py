"""Our language model equals transformers, stored or computed live.

The stored arrays were written by
`python -m experiments.goldens.make_parity_goldens`.
"""

import dataclasses
import pathlib
import sys

import numpy as np
import pytest

from jumprelu import lm
from jumprelu.evals import parity
from jumprelu.lm import huggingface, weights
from jumprelu.run import main
from tests.lm import huggingface_folders

_GOLDENS = pathlib.Path(__file__).parent / 'parity_goldens'
_TOLERANCE = 2e-5
_CONFIGS = huggingface_folders.CONFIGS | huggingface_folders.GEMMA3_CONFIGS
_NAMES = tuple(_CONFIGS)


def write(folder, name, **kwargs):
  """Writes the model of a name with the prefix of its tensors."""
  prefix = huggingface_folders.PREFIXES.get(name)
  return huggingface_folders.write(
      folder, _CONFIGS[name], prefix=prefix, **kwargs
  )


def golden(name):
  """Returns token ids and the stored arrays of transformers."""
  with np.load(_GOLDENS / f'{name}.npz', allow_pickle=False) as stored:
    values = {key: stored[key] for key in stored.files}
  return values.pop('token_ids'), values


def load(folder, transposed=True):
  """Returns the model of a folder, with gating weights transposed or not."""
  config = dataclasses.replace(
      lm.get_config(str(folder)), transposed_gating=transposed
  )
  params = weights.load(config, huggingface.Weights(folder, config))
  return lm.LanguageModel(config, params, folder / 'none', config.layers)


def assert_equal(model, tokens, wanted):
  actual = parity.ours(model, tokens)
  assert actual.keys() == wanted.keys()
  rows = parity.compare(actual, wanted, tokens=tokens, config=model.config)
  assert len(rows) == 4 * model.config.layers + 1
  assert all(row.largest > 0.1 for row in rows)
  worst = max(rows, key=lambda row: row.difference)
  assert worst.difference <= _TOLERANCE, worst


@pytest.mark.parametrize('name', _NAMES)
def test_logits_and_every_tap_equal_those_of_transformers(tmp_path, name):
  folder = write(tmp_path / name, name, files=2)
  tokens, wanted = golden(name)
  # As in the released checkpoints, gating is transposed except in the 2B.
  assert_equal(load(folder, transposed=name != '2b'), tokens, wanted)


def test_goldens_detect_other_windows_scales_and_caps(tmp_path):
  config = huggingface_folders.CONFIGS['27b']
  tokens, wanted = golden('27b')
  folder = huggingface_folders.write(tmp_path / 'tiny', config)
  model = load(folder)
  for change in (
      {'window': 6},
      {'query_scale_by_model': False},
      {'attention_softcap': 5.0},
      {'logits_softcap': 20.0},
  ):
    other = dataclasses.replace(
        model, config=dataclasses.replace(model.config, **change)
    )
    with pytest.raises(AssertionError):
      assert_equal(other, tokens, wanted)


def test_goldens_detect_what_distinguishes_gemma_3(tmp_path):
  tokens, wanted = golden('gemma3_4b')
  model = load(write(tmp_path / 'tiny', 'gemma3_4b'))
  local, scaled = model.config.local_rope, model.config.global_rope
  for change in (
      {'layer_pattern': model.config.layer_pattern[1:]},
      {'local_rope': local._replace(base=20_000)},
      {'global_rope': scaled._replace(base=500_000)},
      {'global_rope': scaled._replace(scale=1.0)},
      {'attention_softcap': 50.0},
      {'logits_softcap': 30.0},
  ):
    other = dataclasses.replace(
        model, config=dataclasses.replace(model.config, **change)
    )
    with pytest.raises(AssertionError):
      assert_equal(other, tokens, wanted)


def test_goldens_hold_long_packed_and_padded_rows():
  for name in _NAMES:
    tokens, _ = golden(name)
    text = _CONFIGS[name].get('text_config', _CONFIGS[name])
    window = text['sliding_window']
    assert tokens.shape[1] > 2 * window
    assert (tokens[0] > 1).all() and (tokens[0] == 2).sum() == 1
    assert (tokens[1] == 2).sum() == 3 and (tokens[1] == 1).sum() == 2
    assert (tokens[2, -4:] == 0).all()


def test_harvest_writes_what_transformers_hooks_read(tmp_path):
  folder = huggingface_folders.write(
      tmp_path / 'tiny', huggingface_folders.CONFIGS['27b']
  )
  tokens, wanted = golden('27b')
  rows = [0, 2]  # The rows of a single document.
  np.save(tmp_path / 'ids.npy', tokens[rows])
  text = tokens[rows] != 0
  for layer in range(3):
    out = tmp_path / f'{layer}.npz'
    flags = [
        f'--model={folder}', f'--layer={layer}', f'--out={out}',
        f'--token_ids={tmp_path / "ids.npy"}', f'--logits={layer == 2}',
    ]  # fmt: skip
    assert main.launch('harvest', flags) == 0
    with np.load(out) as stored:
      for site in lm.Site:
        value = wanted[parity.key(lm.Tap(layer, site))][rows]
        difference = np.abs(stored[str(site)] - value)[text].max()
        assert difference <= _TOLERANCE, (site, layer)
      if layer == 2:
        logits = stored['logits'] - wanted['logits'][rows]
        assert np.abs(logits[text]).max() <= _TOLERANCE


def test_the_table_marks_differences_beyond_the_tolerance(capsys):
  rows = [
      parity.Row('mlp_out', 0, difference=1e-6, largest=2.0),
      parity.Row('logits', None, difference=float('nan'), largest=2.0),
  ]
  first, second = parity.table(rows, 1e-4).splitlines()[1:]
  assert 'beyond' not in first and 'beyond' in second


def test_parity_names_its_missing_extra_and_folder(
    tmp_path, capsys, monkeypatch
):
  folder = huggingface_folders.write(
      tmp_path / 'tiny', huggingface_folders.CONFIGS['2b']
  )
  monkeypatch.setitem(sys.modules, 'transformers', None)
  assert main.launch('parity', [str(folder)]) == 2
  error = capsys.readouterr().err
  assert "pip install 'jumprelu[interop]'" in error and error.count('\n') == 1
  assert main.launch('parity', ['--model=gemma2_nano']) == 2
  assert 'not in the format of Hugging Face' in capsys.readouterr().err
  assert main.launch('parity', []) == 2


@pytest.mark.interop
@pytest.mark.parametrize('name', _NAMES)
def test_goldens_are_what_transformers_computes_today(tmp_path, name):
  folder = write(tmp_path / 'tiny', name)
  tokens, wanted = golden(name)
  live = parity.theirs(folder, tokens)
  assert live.keys() == wanted.keys()
  for key, value in live.items():
    text = tokens != 0
    difference = np.abs(value - wanted[key])[text].max()
    assert difference <= _TOLERANCE, key
  assert_equal(load(folder), tokens, live)


@pytest.mark.interop
def test_the_exit_code_depends_on_the_tolerance(tmp_path, capsys):
  folder = huggingface_folders.write(
      tmp_path / 'tiny', huggingface_folders.CONFIGS['27b'], files=3
  )
  assert main.launch('parity', [str(folder), '--length=24']) == 0
  out = capsys.readouterr().out
  for site in lm.Site:
    assert out.count(f'\n{site} ') == 3
  assert 'logits' in out and 'beyond' not in out
  assert main.launch('parity', [str(folder), '--tolerance=0']) == 70
  captured = capsys.readouterr()
  assert 'beyond' in captured.out and 'tolerance 0' in captured.err
