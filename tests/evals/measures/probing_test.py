"""Sparse probing with planted latents, and its sums against NumPy."""

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

# Positive tokens of the task `all`, and their first and second halves.
_ALL = np.arange(20, 32)
_FIRST, _SECOND = _ALL[:6], _ALL[6:]
_WIDTH = 24


def table():
  """Returns activations by token.

  Axes 0 and 1 are the halves of the task `all`. Tokens that are not kept have
  large values on both axes.
  """
  rows = np.random.default_rng(0).normal(size=(64, 16)) * 0.3
  rows[:, :2] = 0
  rows[_FIRST, 0] = rows[_SECOND, 1] = 1
  rows[[packing.PAD, packing.BOS, packing.EOS], :2] = 9
  return rows


def member():
  """Returns two members with planted latents; the other latents read noise.

  In both members, latents 5 and 9 are the halves of the task `all`. In the
  second member, latent 7 is the whole task.
  """
  rng = np.random.default_rng(1)
  encoders = rng.normal(size=(_WIDTH, 16)) * 0.25
  encoders[:, :2] = 0
  encoders[5], encoders[9] = np.eye(16)[:2]
  decoders = rng.normal(size=(_WIDTH, 16))
  whole = encoders.copy()
  whole[7] = np.eye(16)[0] + np.eye(16)[1]
  return planted.make_sae(encoders, decoders), planted.make_sae(whole, decoders)


def rows(pooled=False, seed=2):
  """Returns labelled rows; the second task has random labels."""
  rng = np.random.default_rng(seed)
  count = 80
  tokens = rng.integers(4, 64, (count, 12))
  tokens[:, 0] = packing.BOS
  tokens[::3, -2:] = packing.PAD
  inside = np.isin(tokens, _ALL)
  if pooled:
    # A text has at most one positive token.
    tokens[inside] = 4
    positive = rng.random(count) < 0.5
    tokens[positive, 3] = rng.choice(_ALL, positive.sum())
    inside = positive[:, None]
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
  scores = probing.of_rows(context, rows(pooled))
  return {(r['path'], r['task'], r['features'], r['k']): r for r in scores}


def test_a_latent_equal_to_the_label_scores_one():
  row = measured()['m1', 'all', 'latents', 1]
  assert row['chosen'] == '7'
  for score in ('accuracy', 'balanced_accuracy', 'f1'):
    assert row[score] == 1 and row[f'{score}_stderr'] == 0


def test_one_half_has_partial_recall_and_both_halves_score_one():
  single, pair = (measured()['m0', 'all', 'latents', k] for k in (1, 2))
  assert set(pair['chosen'].split()) == {'5', '9'}
  assert single['chosen'] in pair['chosen'].split()
  part = _FIRST if single['chosen'] == '5' else _SECOND
  labelled_rows = rows()
  covered = np.isin(labelled_rows.tokens, part)[labelled_rows.test]
  labels = labelled_rows.labels[labelled_rows.test][..., 0]
  recall = covered[labels == 1].mean()
  np.testing.assert_allclose(single['balanced_accuracy'], (recall + 1) / 2)
  assert pair['balanced_accuracy'] == 1
  np.testing.assert_allclose(single['base_rate'], labels[labels >= 0].mean())
  assert 0 < single['balanced_accuracy_stderr'] < 0.1
  assert single['examples_test'] == (labels >= 0).sum()
  test_documents = labelled_rows.documents[labelled_rows.test]
  assert single['documents_test'] == len(set(test_documents))


def test_probes_are_fitted_on_the_train_set_and_scored_on_the_test_set():
  context = planted.make_context(table(), *member(), sequences=12)
  labelled_rows = rows()
  chosen, _ = member()
  unit = examples.Unit(chosen.sae, chosen.params, chosen.source)
  (sums,) = examples.sums_of(context, [unit], labelled_rows, pooling=None)
  train = labelled_rows.labels[~labelled_rows.test]
  for kind in (0, 1):
    wanted = (train == kind).sum((0, 1))
    np.testing.assert_array_equal(sums.count[:, kind], wanted)
  # With inverted test labels, every prediction is wrong.
  flipped = np.where(
      labelled_rows.labels < 0, labelled_rows.labels, 1 - labelled_rows.labels
  )
  labels = np.where(
      labelled_rows.test[:, None, None], flipped, labelled_rows.labels
  )
  scores = probing.of_rows(context, labelled_rows._replace(labels=labels))
  (row,) = [
      r
      for r in scores
      if (r['path'], r['task'], r['k']) == ('m1', 'all', 1)
      and r['features'] == 'latents'
  ]
  assert row['chosen'] == '7' and row['accuracy'] == 0


def test_random_labels_cannot_be_predicted():
  for name in ('m0', 'm1'):
    for k in (1, 2, 5):
      row = measured()[name, 'coin', 'latents', k]
      deviation = abs(row['balanced_accuracy'] - 0.5)
      assert deviation < 4 * row['balanced_accuracy_stderr'] < 0.3


def test_the_baselines_are_the_best_channels_and_all_channels():
  scores = measured()
  assert scores['m0', 'all', 'activations', 1]['chosen'] in ('0', '1')
  assert scores['m0', 'all', 'activations', 2]['balanced_accuracy'] == 1
  assert scores['m0', 'all', 'all activations', 16]['f1'] == 1


@pytest.mark.parametrize('pooling', ['mean', 'max'])
def test_texts_are_classified_by_their_kept_tokens(pooling):
  row = measured(pooled=True, pooling=pooling)['m1', 'all', 'latents', 1]
  assert row['chosen'] == '7' and row['balanced_accuracy'] == 1
  assert row['examples_test'] == rows(True).test.sum()


def test_scores_do_not_depend_on_the_batch_size():
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


def test_a_task_with_a_single_class_is_refused():
  context = planted.make_context(table(), *member(), sequences=12)
  labelled_rows = rows()
  labels = np.where(
      labelled_rows.test[:, None, None],
      np.minimum(labelled_rows.labels, 0),
      labelled_rows.labels,
  )
  with pytest.raises(
      errors.UserError, match="'all' has only one class in the test"
  ):
    probing.of_rows(context, labelled_rows._replace(labels=labels))


@pytest.mark.parametrize(
    'pooling, devices', [(None, 1), ('mean', 1), ('max', 8)]
)
def test_sums_and_values_equal_numpy(monkeypatch, pooling, devices):
  # In several chunks, as for a wide member.
  monkeypatch.setattr(jitted, '_CHUNK_BYTES', 4 * 8 * 3 * _WIDTH // devices)
  labelled_rows, placed = rows(bool(pooling)), member()[0]
  mesh = None
  if devices > 1:
    mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  x = table()[labelled_rows.tokens[:8]].astype(np.float32)
  keep, labels = (
      packing.keep_mask(labelled_rows.tokens[:8]),
      labelled_rows.labels[:8],
  )
  latents = x @ np.asarray(placed.params['W_enc'])
  latents = np.where(latents > 0.25, latents, 0)
  if pooling:
    kept = keep[..., None]
    mean = np.where(kept, latents, 0).sum(1) / keep.sum(1)[:, None]
    maximum = np.where(kept, latents, -np.inf).max(1)
    latents = (mean if pooling == 'mean' else maximum)[:, None]
  call = {'keep': text.place(keep, mesh, None, None)}
  call |= {'sae': placed.sae, 'pooling': pooling, 'mesh': mesh}
  inputs = text.place(x, mesh, None, None, None)
  jax.clear_caches()
  sums = examples.class_sums(placed.params, inputs, jnp.asarray(labels), **call)
  for task in range(2):
    for kind in range(2):
      class_rows = latents[labels[..., task] == kind]
      assert sums.count[task, kind] == len(class_rows)
      np.testing.assert_allclose(
          sums.total[task, kind], class_rows.sum(0), rtol=1e-4, atol=1e-4
      )
  columns = np.asarray([9, 3, 3, 0])
  values = examples.gather(placed.params, inputs, jnp.asarray(columns), **call)
  shown = labels[..., 0] >= 0
  np.testing.assert_allclose(
      np.asarray(values)[shown],
      latents[shown][:, columns],
      rtol=1e-4,
      atol=1e-5,
  )
