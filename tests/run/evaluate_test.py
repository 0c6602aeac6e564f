"""`jumprelu evaluate`: a release in, rows out; bad input is one line."""

import json

import jax.numpy as jnp
import numpy as np
from pyarrow import parquet
import pytest

from jumprelu import lm
from jumprelu.run import evaluate, main
from tests import nano_release, small_release


def test_a_release_is_evaluated_member_by_member(tmp_path, capsys):
  out = tmp_path / 'results' / 'nano.jsonl'
  code = main.launch(
      'evaluate',
      [
          str(nano_release.make_release(tmp_path / 'release')),
          f'--data={nano_release.make_text(tmp_path / "text")}',
          f'--out={out}',
          f'--corpus.cache_dir={tmp_path / "cache"}',
          '--corpus.sequence_length=32',
          '--corpus.held_out_percent=50',
          '--eval.lm_sequences=8',
          '--eval.pca_tokens=512',
      ],
  )
  printed = capsys.readouterr().out
  assert code == 0
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert [row['seed'] for row in rows] == [0, 1]
  assert rows[0]['path'] != rows[1]['path']
  for row in rows:
    assert (tmp_path / 'release' / row['path'] / 'params.npz').is_file()
    assert row['model'] == 'gemma2_nano' and row['layer'] == nano_release.LAYER
    assert row['width'] == 16 and row['tokens_trained'] == 1000
    assert row['tokens_evaluated'] >= row['tokens_delta_loss'] > 100
    assert 0 <= row['l0'] <= 16 and row['pca_fvu'] > 0
    assert row['loss_zero_ablation'] > row['loss_clean'] > 0
  assert parquet.read_table(out.with_suffix('.parquet')).to_pylist() == rows
  assert printed.splitlines()[0].startswith('site') and str(out) in printed


@pytest.mark.parametrize(
    'flags, code, words',
    [
        ([], 2, '--release is needed; --out is needed'),
        (['--release=x', '--out=a.csv'], 2, 'must end in .jsonl'),
        (['--release=x', '--out=a.jsonl'], 66, 'x/suite.json: no such file'),
        (['--release=x', '--out=a.jsonl', '--eval.tokens=0'], 2, 'eval.tokens'),
    ],
)
def test_bad_input_is_one_line(
    flags, code, words, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert main.launch('evaluate', flags) == code
  told = capsys.readouterr().err
  assert words in told and len(told.splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_a_transcoder_without_the_gain_gets_inputs_without_it(tmp_path):
  gain = np.linspace(0.5, 2.0, 8).astype(np.float32)
  model = lm.LanguageModel(
      lm.get_config('gemma2_nano'),
      {'layer_2': {'pre_ffw_norm': {'scale': jnp.asarray(gain - 1)}}},
      tmp_path,
      4,
  )
  sae, params = small_release.trained_transcoder()
  sae, params = sae.fold(params, input_scale=3.0, target_scale=2.0)
  config = {'layer': 2, 'site': 'transcoder', 'input_gain': False}
  member = evaluate._make_member(model, 'path', sae, params, config)
  x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  np.testing.assert_allclose(
      sae.encode(member.params, jnp.asarray(x * gain)),
      sae.encode(params, jnp.asarray(x)),
      rtol=1e-5,
  )
