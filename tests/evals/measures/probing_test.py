"""Sparse probing where the answer is known, and its sums against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, sharding
from jumprelu.data import packing
from jumprelu.evals import jitted, text
from jumprelu.evals.measures import config, examples, labelled, probing
from tests.evals import planted

# The tokens that a task is about: all of them, the first and the second half.
_ALL = np.arange(20, 32)
_FIRST, _SECOND = _ALL[:6], _ALL[6:]
_WIDTH = 24


def table():
  """Activations: two axes of a half each; what is not kept shouts both."""
  rows = np.random.default_rng(0).normal(size=(64, 16)) * 0.3
  rows[:, :2] = 0
  rows[_FIRST, 0] = rows[_SECOND, 1] = 1
  rows[[packing.PAD, packing.BOS, packing.EOS], :2] = 9
  return rows


def member():
  """Latents 5 and 9 are the halves, 7 is all; the others read noise."""
  rng = np.random.default_rng(1)
  encoders = rng.normal(size=(_WIDTH, 16)) * 0.25
  encoders[:, :2] = 0
  encoders[5], encoders[9] = np.eye(16)[:2]
  decoders = rng.normal(size=(_WIDTH, 16))
  whole = encoders.copy()
  whole[7] = np.eye(16)[0] + np.eye(16)[1]
  return planted.make_sae(encoders, decoders), planted.make_sae(whole, decoders)


def rows(pooled=False, seed=2):
  """Rows whose labels are those of their tokens; the last task is a coin."""
  rng = np.random.default_rng(seed)
  count = 80
  tokens = rng.integers(4, 64, (count, 12))
  tokens[:, 0] = packing.BOS
  tokens[::3, -2:] = packing.PAD
  inside = np.isin(tokens, _ALL)
  if pooled:
    # A text has one token of the task, or none.
    tokens[inside] = 4
    some = rng.random(count) < 0.5
    tokens[some, 3] = rng.choice(_ALL, some.sum())
    inside = some[:, None]
  coin = rng.random(inside.shape) < 0.5
  keep = packing.keep_mask(tokens)
  labels = np.stack([inside, coin], -1).astype(np.int8)
  labels[~(keep.any(1, keepdims=True) if pooled else keep)] = -1
  return labelled.Labelled(
      'set', ('all', 'coin'), tokens, labels, np.arange(count) // 4,
      np.arange(count) // 4 % 3 == 0, pooled,
  )  # fmt: skip


@functools.cache
def measured(pooled=False, pooling='mean', sequences=12):
  context = planted.make_context(
      table(),
      *member(),
      sequences=sequences,
      probing=config.Probing(pooling=pooling),
  )
  found = probing.of_rows(context, rows(pooled))
  return {(r['path'], r['task'], r['features'], r['k']): r for r in found}


def test_a_latent_that_is_the_label_is_enough():
  found = measured()['m1', 'all', 'latents', 1]
  assert found['chosen'] == '7'
  for score in ('accuracy', 'balanced_accuracy', 'f1'):
    assert found[score] == 1 and found[f'{score}_stderr'] == 0


def test_half_a_label_gives_half_of_it_and_both_halves_all():
  one, two = (measured()['m0', 'all', 'latents', k] for k in (1, 2))
  assert set(two['chosen'].split()) == {'5', '9'}
  assert one['chosen'] in two['chosen'].split()
  part = _FIRST if one['chosen'] == '5' else _SECOND
  given = rows()
  told = np.isin(given.tokens, part)[given.test]
  labels = given.labels[given.test][..., 0]
  recall = told[labels == 1].mean()
  np.testing.assert_allclose(one['balanced_accuracy'], (recall + 1) / 2)
  assert two['balanced_accuracy'] == 1
  np.testing.assert_allclose(one['base_rate'], labels[labels >= 0].mean())
  assert 0 < one['balanced_accuracy_stderr'] < 0.1
  assert one['examples_test'] == (labels >= 0).sum()
  assert one['documents_test'] == len(set(given.documents[given.test]))


def test_one_side_chooses_and_teaches_and_the_other_is_scored():
  context = planted.make_context(table(), *member(), sequences=12)
  given = rows()
  chosen, _ = member()
  one = examples.Unit(chosen.sae, chosen.params, chosen.source)
  (sums,) = examples.sums_of(context, [one], given, pooling=None)
  train = given.labels[~given.test]
  for kind in (0, 1):
    wanted = (train == kind).sum((0, 1))
    np.testing.assert_array_equal(sums.count[:, kind], wanted)
  # Where the other side says the opposite, what was learnt is all wrong.
  flipped = np.where(given.labels < 0, given.labels, 1 - given.labels)
  labels = np.where(given.test[:, None, None], flipped, given.labels)
  found = probing.of_rows(context, given._replace(labels=labels))
  (row,) = [
      r
      for r in found
      if (r['path'], r['task'], r['k']) == ('m1', 'all', 1)
      and r['features'] == 'latents'
  ]
  assert row['chosen'] == '7' and row['accuracy'] == 0


def test_a_coin_cannot_be_told():
  for name in ('m0', 'm1'):
    for k in (1, 2, 5):
      found = measured()[name, 'coin', 'latents', k]
      off = abs(found['balanced_accuracy'] - 0.5)
      assert off < 4 * found['balanced_accuracy_stderr'] < 0.3


def test_the_baselines_are_channels_and_all_of_them():
  found = measured()
  assert found['m0', 'all', 'activations', 1]['chosen'] in ('0', '1')
  assert found['m0', 'all', 'activations', 2]['balanced_accuracy'] == 1
  assert found['m0', 'all', 'all activations', 16]['f1'] == 1


@pytest.mark.parametrize('pooling', ['mean', 'max'])
def test_texts_are_told_by_their_kept_tokens(pooling):
  found = measured(pooled=True, pooling=pooling)['m1', 'all', 'latents', 1]
  assert found['chosen'] == '7' and found['balanced_accuracy'] == 1
  assert found['examples_test'] == rows(True).test.sum()


def test_batches_do_not_matter():
  for key, row in measured(sequences=80).items():
    for name, value in row.items():
      if isinstance(value, float):
        np.testing.assert_allclose(value, measured()[key][name], atol=1e-9)
      else:
        assert value == measured()[key][name]


def test_columns_are_means_over_the_tasks():
  table = list(measured().values())
  columns = probing._columns(table, 'm1')
  assert columns['tasks_probing'] == 2
  pair = [measured()['m1', t, 'latents', 1] for t in ('all', 'coin')]
  np.testing.assert_allclose(
      columns['probing_latents_k1'],
      np.mean([r['balanced_accuracy'] for r in pair]),
  )
  assert 'probing_all_activations' in columns


def test_a_task_of_one_class_is_refused():
  context = planted.make_context(table(), *member(), sequences=12)
  given = rows()
  labels = np.where(
      given.test[:, None, None], np.minimum(given.labels, 0), given.labels
  )
  with pytest.raises(
      errors.UserError, match="'all' has only one class in the test"
  ):
    probing.of_rows(context, given._replace(labels=labels))


@pytest.mark.parametrize(
    'pooling, devices', [(None, 1), ('mean', 1), ('max', 8)]
)
def test_sums_and_values_equal_numpy(monkeypatch, pooling, devices):
  # Cut into chunks, as a wide member's would be.
  monkeypatch.setattr(jitted, '_CHUNK_BYTES', 4 * 8 * 3 * _WIDTH // devices)
  given, one = rows(bool(pooling)), member()[0]
  mesh = None
  if devices > 1:
    mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  x = table()[given.tokens[:8]].astype(np.float32)
  keep, labels = packing.keep_mask(given.tokens[:8]), given.labels[:8]
  latents = x @ np.asarray(one.params['W_enc'])
  latents = np.where(latents > 0.25, latents, 0)
  if pooling:
    kept = keep[..., None]
    mean = np.where(kept, latents, 0).sum(1) / keep.sum(1)[:, None]
    most = np.where(kept, latents, -np.inf).max(1)
    latents = (mean if pooling == 'mean' else most)[:, None]
  call = {'keep': text.place(keep, mesh, None, None)}
  call |= {'sae': one.sae, 'pooling': pooling, 'mesh': mesh}
  inputs = text.place(x, mesh, None, None, None)
  jax.clear_caches()
  sums = examples.class_sums(one.params, inputs, jnp.asarray(labels), **call)
  for task in range(2):
    for kind in range(2):
      some = latents[labels[..., task] == kind]
      assert sums.count[task, kind] == len(some)
      np.testing.assert_allclose(
          sums.total[task, kind], some.sum(0), rtol=1e-4, atol=1e-4
      )
  columns = np.asarray([9, 3, 3, 0])
  values = examples.gather(one.params, inputs, jnp.asarray(columns), **call)
  shown = labels[..., 0] >= 0
  np.testing.assert_allclose(
      np.asarray(values)[shown],
      latents[shown][:, columns],
      rtol=1e-4,
      atol=1e-5,
  )
