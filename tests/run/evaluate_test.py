"""`jumprelu evaluate`: rows of a release, and one-line errors."""

import concurrent.futures
import json
import shutil
import threading

import numpy as np
from pyarrow import parquet
import pytest

from jumprelu import errors
from jumprelu.run import evaluate, main
from tests import nano_release


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Returns a folder with a release and text to evaluate it on."""
  folder = tmp_path_factory.mktemp('evaluate')
  nano_release.make_release(folder / 'release')
  nano_release.make_text(folder / 'text')
  return folder


def _flags(folder):
  """Returns the flags of all evaluations of these tests."""
  return [
      f'--data={folder / "text"}',
      f'--corpus.cache_dir={folder / "cache"}',
      '--corpus.sequence_length=32',
      '--corpus.held_out_percent=50',
      '--corpus.seed=3',
      '--eval.lm_sequences=8',
      '--eval.pca_tokens=512',
  ]


def launch(folder, out, *flags):
  """Runs the command and returns its rows."""
  argv = [*_flags(folder), f'--out={out}', *flags]
  assert main.launch('evaluate', argv) == 0
  return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope='module')
def rows(folder):
  out = folder / 'results' / 'nano.jsonl'
  return launch(folder, out, str(folder / 'release'))


def test_a_release_is_evaluated_member_by_member(folder, rows):
  assert [row['seed'] for row in rows] == [0, 1]
  assert rows[0]['path'] != rows[1]['path']
  for row in rows:
    assert (folder / 'release' / row['path'] / 'params.npz').is_file()
    assert row['model'] == 'gemma2_nano' and row['layer'] == nano_release.LAYER
    assert row['width'] == 16 and row['tokens_trained'] == 1000
    assert row['tokens_evaluated'] >= row['tokens_delta_loss'] > 100
    assert 0 <= row['l0'] <= 16 and row['pca_fvu'] > 0
    assert row['loss_zero_ablation'] > row['loss_clean'] > 0
  stored = folder / 'results' / 'nano.parquet'
  assert parquet.read_table(stored).to_pylist() == rows


def test_without_out_the_table_is_printed_and_nothing_is_written(
    folder, rows, capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  path = folder / 'release' / rows[1]['path'] / 'params.npz'
  assert main.launch('evaluate', [*_flags(folder), str(path)]) == 0
  header, line, *_, end = capsys.readouterr().out.splitlines()
  shown = dict(zip(header.split(), line.split(), strict=False))
  assert float(shown['L0']) == pytest.approx(rows[1]['l0'], rel=1e-3)
  assert end.startswith('Nothing was written; --out=FILE.jsonl keeps')
  assert not list(tmp_path.iterdir())


def test_bare_arrays_have_the_results_of_their_release(folder, rows, capsys):
  bare = folder / 'bare'
  for row in rows:
    target = bare / row['path']
    target.mkdir(parents=True)
    shutil.copy(folder / 'release' / row['path'] / 'params.npz', target)
  out = folder / 'bare.jsonl'
  flags = ['--model=gemma2_nano', '--measures=histogram,geometry']
  bare_rows = launch(folder, out, str(bare), *flags)
  printed = capsys.readouterr().out
  assert printed.splitlines()[1].startswith('site') and str(out) in printed
  assert len(bare_rows) == len(rows) == 2
  for ours, theirs in zip(bare_rows, rows, strict=True):
    assert ours['seed'] is None and ours['released_l0'] == 3
    for key in ('path', 'layer', 'site', 'variant', 'l0', 'fvu', 'delta_loss'):
      assert ours[key] == theirs[key], key
    assert (
        0 <= ours['over_10_percent_share'] <= 1 and ours['nearest_cosine'] < 1
    )
    assert 'nearest_cosine' not in theirs
  for name in ('histogram', 'geometry'):
    lines = (folder / f'bare.{name}.jsonl').read_text().splitlines()
    table = parquet.read_table(folder / f'bare.{name}.parquet').to_pylist()
    assert table == [json.loads(line) for line in lines] != []
    assert {row['path'] for row in table} == {row['path'] for row in bare_rows}


@pytest.mark.slow
def test_measures_of_words_need_no_download(folder):
  rows, best = _probed(
      folder,
      'python',
      '--measures=probing,absorption,attribution',
      '--measure.probing.tokens=6_400',
      '--measure.absorption.words=800',
      '--measure.absorption.shots=1',
  )
  assert best['keyword'] > 0.8 and best['string'] > 0.6
  for row in rows:
    parts = [row[f'attribution_{p}'] for p in ('latents', 'affine', 'error')]
    np.testing.assert_allclose(sum(parts), row['attribution_total'], atol=1e-3)
    # A small model represents the form of words, but not their spelling.
    assert row['absorption_form_probe_f1'] > 0.5 > row['absorption_probe_f1']
    assert row['absorption_known'] == 0 and row['absorption_fraction'] is None
    assert 0 <= row['absorption_form_fraction'] <= 1


@pytest.mark.slow
def test_texts_are_probed_for_custom_labels(folder):
  labels = [
      {'text': 'return the mat' if i % 2 else 'a cat is x', 'label': i % 2}
      for i in range(20)
  ]
  texts = [r | {'text': f'{r["text"]} {i}'} for i, r in enumerate(labels)]
  data = folder / 'words.jsonl'
  data.write_text('\n'.join(map(json.dumps, texts)))
  _, best = _probed(
      folder, 'words', '--measures=probing', f'--measure.probing.data={data}'
  )
  # The words of a text determine its label.
  assert best == {'1': 1.0}


def _probed(folder, name, *flags):
  """Evaluates; returns rows, and the accuracy of all activations per task."""
  out = folder / f'{name}.jsonl'
  rows = launch(folder, out, str(folder / 'release'), *flags)
  lines = (folder / f'{name}.probing.jsonl').read_text().splitlines()
  table = [json.loads(line) for line in lines]
  assert {row['set'] for row in table} == {name}
  whole = [r for r in table if r['features'] == 'all activations']
  return rows, {r['task']: r['balanced_accuracy'] for r in whole}


def test_an_sae_of_another_size_is_refused_before_the_text_is_read(
    folder, rows, capsys
):
  arrays = dict(np.load(folder / 'release' / rows[0]['path'] / 'params.npz'))
  arrays['W_enc'] = arrays['W_enc'][:100]
  arrays['W_dec'] = arrays['W_dec'][:, :100]
  arrays['b_dec'] = arrays['b_dec'][:100]
  bare = folder / 'narrow' / 'resid_post' / 'layer_1' / 'width_16' / 'a'
  bare.mkdir(parents=True)
  np.savez(bare / 'params.npz', **arrays)
  argv = [str(bare), '--model=gemma2_nano', '--data=nowhere.txt']
  assert main.launch('evaluate', argv) == 2
  (error,) = capsys.readouterr().err.splitlines()
  assert 'maps 100 to 100 dimensions, but at this site gemma2_nano' in error
  assert main.launch('features', [*argv, f'--out={folder}/f']) == 2
  assert 'maps 100 to 100 dimensions' in capsys.readouterr().err


def test_a_layer_that_the_model_lacks_is_refused(folder, capsys):
  bare = folder / 'deep' / 'resid_post' / 'layer_9'
  shutil.copytree(folder / 'release', folder / 'copy')
  path = next((folder / 'copy').rglob('params.npz'))
  bare.mkdir(parents=True)
  shutil.copy(path, bare)
  argv = [
      str(folder / 'deep'),
      '--model=gemma2_nano',
      f'--data={folder / "text"}',
      f'--out={folder / "none.jsonl"}',
      f'--corpus.cache_dir={folder / "cache"}',
      '--corpus.sequence_length=32',
      '--corpus.held_out_percent=50',
  ]
  assert main.launch('evaluate', argv) == 2
  error = capsys.readouterr().err
  assert 'layer 9, but gemma2_nano has layers 0 to 3' in error


@pytest.mark.parametrize(
    'flags, code, words',
    [
        ([], 2, '--release is needed'),
        (['--release=x', '--out=a.csv'], 2, 'must end in .jsonl'),
        (['--release=x', '--out=a.jsonl'], 66, 'x: no such folder'),
        (['--release=x', '--out=a.jsonl', '--eval.tokens=0'], 2, 'eval.tokens'),
        (['--release=x', '--out=a.jsonl', '--measures=a'], 2, "'a' is unknown"),
    ],
)
def test_bad_input_is_one_line(
    flags, code, words, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert main.launch('evaluate', flags) == code
  error = capsys.readouterr().err
  assert words in error and len(error.splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_several_processes_may_check_the_target_at_once(tmp_path):
  out = tmp_path / 'new' / 'results.jsonl'
  start = threading.Barrier(4)

  def check(_):
    start.wait()
    for _ in range(200):
      evaluate._check_writable(out)

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(check, range(4)))  # Raises the exceptions of the threads.
  assert not list(out.parent.iterdir())


def test_the_check_does_not_change_existing_results(tmp_path):
  out = tmp_path / 'results.jsonl'
  for text in '', 'rows':
    out.write_text(text)
    evaluate._check_writable(out)
    assert out.read_text() == text
  with pytest.raises(errors.UserError, match='a directory; name a file'):
    evaluate._check_writable(tmp_path)
