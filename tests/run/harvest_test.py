"""`jumprelu harvest` writes the model's activations, row by row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import data, errors, lm
from jumprelu.activations import harvest
from jumprelu.run import main
from tests.lm import tiny

SITES = ('resid_post', 'mlp_out', 'attn_heads', 'mlp_in')


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
  """Makes the command load a tiny random model by its name."""
  monkeypatch.setitem(lm.MODELS, 'tiny', tiny.CONFIG)
  monkeypatch.setattr(lm, 'load', lambda *args, **kwargs: tiny.model())


def run(tmp_path, ids, *flags):
  np.save(tmp_path / 'ids.npy', ids)
  code = main.launch(
      'harvest',
      [
          '--model=tiny',
          f'--token_ids={tmp_path / "ids.npy"}',
          f'--out={tmp_path / "out.npz"}',
          *flags,
      ],
  )
  assert code == 0
  with np.load(tmp_path / 'out.npz', allow_pickle=False) as stored:
    return {k: stored[k] for k in stored.files}


def expected(ids, layer):
  """Returns the activations of one row without padding, from position 0."""
  model = tiny.model()
  tokens = jnp.asarray(ids, jnp.int32)[None]
  places = {
      'positions': jnp.arange(len(ids), dtype=jnp.int32)[None],
      'segments': jnp.ones_like(tokens),
  }
  taps = tuple(lm.Tap(layer, lm.Site(site)) for site in SITES)

  @jax.jit
  def compute(params):
    return (
        lm.activations(model, params, tokens, taps=taps, **places),
        lm.logits(model, params, tokens, **places),
    )

  values, logits = compute(model.params)
  arrays = {str(tap.site): value[0] for tap, value in values.items()}
  return arrays | {'logits': logits[0]}


def test_arrays_are_the_activations_of_each_row(tmp_path, capsys):
  ids = np.asarray(tiny.batch(sequences=3).tokens, np.int32).copy()
  ids[1, 7:] = 0
  arrays = run(tmp_path, ids, '--layer=1', '--batch=2', '--logits')
  assert sorted(arrays) == sorted([*SITES, 'logits'])
  widths = {'attn_heads': 32, 'logits': 64}
  for name, value in arrays.items():
    assert value.dtype == np.float32
    assert value.shape == (3, 12, widths.get(name, 16))
  for row, length in ((1, 7), (2, 12)):
    for name, value in expected(ids[row, :length], 1).items():
      np.testing.assert_allclose(
          arrays[name][row, :length], value, rtol=1e-4, atol=1e-5
      )
  assert 'out.npz: resid_post' in capsys.readouterr().out
  assert sorted(p.name for p in tmp_path.iterdir()) == ['ids.npy', 'out.npz']


def test_padding_in_the_middle_is_skipped_but_counts_as_a_position(tmp_path):
  ids = np.asarray(tiny.batch(sequences=1).tokens, np.int32).copy()
  other = ids.copy()
  ids[0, 3] = 0
  arrays = run(tmp_path, ids, '--layer=0')
  model = tiny.model()
  # Token 3 of `other` is a separate document, which no other token attends to.
  segments = np.ones((1, 12), np.int32)
  segments[0, 3] = 2
  values = jax.jit(
      lambda params: lm.activations(
          model,
          params,
          jnp.asarray(other),
          positions=jnp.arange(12, dtype=jnp.int32)[None],
          segments=jnp.asarray(segments),
          taps=(lm.Tap(0, lm.Site.RESID_POST),),
      )
  )(model.params)
  kept = np.arange(12) != 3
  np.testing.assert_allclose(
      arrays['resid_post'][0, kept],
      values[lm.Tap(0, lm.Site.RESID_POST)][0, kept],
      rtol=1e-4,
      atol=1e-5,
  )


def test_mlp_in_includes_the_norms_gain(tmp_path):
  ids = np.asarray(tiny.batch(sequences=1).tokens, np.int32)
  arrays = run(tmp_path, ids, '--layer=0', '--sites=mlp_in')
  assert list(arrays) == ['mlp_in']
  scale = tiny.model().params['layer_0']['pre_ffw_norm']['scale']
  normed = arrays['mlp_in'] / (1 + np.asarray(scale))
  np.testing.assert_allclose(np.square(normed).mean(axis=-1), 1.0, rtol=1e-3)


def test_the_batch_size_does_not_change_the_results(tmp_path):
  ids = np.asarray(tiny.batch(sequences=5).tokens, np.int32)
  single = run(tmp_path, ids, '--layer=0', '--batch=1', '--sites=attn_heads')
  many = run(tmp_path, ids, '--layer=0', '--batch=4', '--sites=attn_heads')
  np.testing.assert_allclose(
      single['attn_heads'], many['attn_heads'], rtol=1e-4, atol=1e-5
  )


def test_text_is_packed_into_rows_that_start_with_bos(tmp_path, monkeypatch):
  monkeypatch.undo()  # The nano model has a tokenizer.
  text = 'def f(x):\n  return x + 1\n' * 40
  (tmp_path / 'essay.txt').write_text(text)
  out = tmp_path / 'out.npz'
  flags = [
      '--model=gemma2_nano', '--layer=0', f'--text={tmp_path / "essay.txt"}',
      f'--out={out}', '--sites=resid_post', '--sequence_length=32',
  ]  # fmt: skip
  assert main.launch('harvest', flags) == 0
  with np.load(out) as stored:
    ids, values = stored['token_ids'], stored['resid_post']
  assert ids.shape[1] == 32
  assert values.shape == (*ids.shape, 128)
  assert (ids[:, 0] == 2).all()
  tokenizer = data.Tokenizer(
      lm.load('gemma2_nano', num_layers=1).tokenizer_path
  )
  assert tokenizer.decode([int(i) for i in ids.ravel() if i > 2]) == text


@pytest.mark.parametrize(
    'ids, message',
    [
        (np.zeros((2, 3), np.float32), 'holds float32'),
        (np.zeros(3, np.int32), 'a shape of length 2'),
        (np.full((2, 3), 64, np.int32), 'token id 64 is not in the vocabulary'),
        (np.full((2, 3), -1, np.int64), 'token id -1'),
        (np.zeros((0, 3), np.int32), 'no token ids'),
    ],
)
def test_bad_token_ids_are_one_line(tmp_path, capsys, ids, message):
  np.save(tmp_path / 'ids.npy', ids)
  flags = [
      '--model=tiny', '--layer=0', f'--token_ids={tmp_path / "ids.npy"}',
      f'--out={tmp_path / "out.npz"}',
  ]  # fmt: skip
  assert main.launch('harvest', flags) == 65
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert not (tmp_path / 'out.npz').exists()


@pytest.mark.parametrize(
    'flags, message, code',
    [
        ([], '--layer is needed; --out is needed', 2),
        (['--layer=0', '--out=a.npz'], 'one of --token_ids and --text', 2),
        (['--layer=9', '--out=a.npz', '--text=a'], 'layers 0 to 3', 2),
        (['--layer=0', '--out=a.npz', '--text=a', '--sites=mlp'], 'mlp', 2),
        (['--layer=0', '--out=a.txt', '--text=a'], 'must end in .npz', 2),
        (['--layer=0', '--out=a.npz', '--text=none.txt'], 'no such file', 66),
        (['--layer=0', '--out=a.npz', '--token_ids=x.npy'], 'no such file', 66),
        (['--layer=0', '--dtype=int8'], 'dtype', 2),
    ],
)
def test_bad_flags_are_one_line(capsys, flags, message, code):
  assert main.launch('harvest', ['--model=tiny', *flags]) == code
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'content, message', [(b'\xff\xfe', 'not UTF-8'), (b'', 'empty')]
)
def test_invalid_text_files_are_refused(
    tmp_path, capsys, monkeypatch, content, message
):
  monkeypatch.undo()
  (tmp_path / 'a.txt').write_bytes(content)
  flags = ['--layer=0', '--out=a.npz', f'--text={tmp_path / "a.txt"}']
  assert main.launch('harvest', flags) == 2
  assert message in capsys.readouterr().err


def test_a_full_disk_is_reported_before_the_forward_pass(tmp_path, monkeypatch):
  usage = harvest.shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(harvest.shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(errors.UserError, match='needs 6,144 bytes'):
    harvest.harvest(
        tiny.model(),
        np.ones((4, 12), np.int32),
        tmp_path / 'out.npz',
        taps={'x': lm.Tap(0, lm.Site.RESID_POST)},
    )
  assert not list(tmp_path.iterdir())


def test_activations_of_a_bfloat16_model_are_stored_in_float32(
    tmp_path, monkeypatch
):
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.model().params)
  rounded = dataclasses.replace(tiny.model(), params=params)
  monkeypatch.setattr(lm, 'load', lambda *args, **kwargs: rounded)
  ids = np.asarray(tiny.batch(sequences=1).tokens, np.int32)
  flags = ['--layer=0', '--dtype=bfloat16', '--sites=mlp_out']
  arrays = run(tmp_path, ids, *flags)
  assert arrays['mlp_out'].dtype == np.float32
  assert np.isfinite(arrays['mlp_out']).all()
