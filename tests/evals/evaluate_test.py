"""Evaluation of members, against plain NumPy and explicit splices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, lm, saes, sharding
from jumprelu.data import packing
from jumprelu.evals import evaluate, results
from tests import small_evaluation as small

row, tiny = small.row, small.tiny


def losses(splice=None):
  """Returns the loss of each position, from a full pass of the model."""
  tokens = jnp.asarray(small.HELD_OUT.tokens)
  return jax.jit(
      lambda params: lm.losses(
          tiny.model(),
          params,
          tokens,
          positions=packing.positions(tokens),
          segments=packing.segments(tokens),
          splice=splice,
      )
  )(tiny.model().params)


def scored():
  """Returns the mask of kept sources with a target in the same document."""
  tokens = small.HELD_OUT.tokens
  mask = np.zeros(tokens.shape, bool)
  for i, line in enumerate(tokens):
    for j in range(len(line) - 1):
      source, target = line[j], line[j + 1]
      mask[i, j] = source > 3 and target not in (packing.BOS, packing.PAD)
  return mask


@pytest.mark.parametrize(
    'name, source, target',
    [
        ('random', lm.Site.RESID_POST, lm.Site.RESID_POST),
        ('heads', lm.Site.ATTN_HEADS, lm.Site.ATTN_HEADS),
        ('transcoder', lm.Site.MLP_IN, lm.Site.MLP_OUT),
    ],
)
def test_first_pass_equals_plain_numpy(name, source, target):
  member = small.MEMBERS[name]()
  params = {k: np.asarray(v, np.float64) for k, v in member.params.items()}
  x, y = small.activations(source), small.activations(target)
  pre_acts = x @ params['W_enc'] + params['b_enc']
  latents = np.where(pre_acts > params['threshold'], pre_acts, 0)
  yhat = latents @ params['W_dec'] + params['b_dec']
  results_row = row(name)
  assert results_row['tokens_evaluated'] == len(x)
  np.testing.assert_allclose(results_row['l0'], (latents > 0).sum(1).mean())
  np.testing.assert_allclose(
      results_row['fvu'],
      np.square(y - yhat).sum() / np.square(y - y.mean(0)).sum(),
      rtol=1e-4,
  )
  np.testing.assert_allclose(
      results_row['gamma'], np.square(yhat).sum() / (y * yhat).sum(), rtol=1e-4
  )
  frequency = small.evaluation().firing_frequency[
      list(small.MEMBERS).index(name)
  ]
  np.testing.assert_allclose(frequency, (latents > 0).mean(0))
  np.testing.assert_allclose(results_row['dead_share'], (frequency == 0).mean())
  np.testing.assert_allclose(
      results_row['dense_share'], (frequency > 0.1).mean()
  )


@pytest.mark.parametrize('name', ['random', 'heads', 'transcoder'])
def test_losses_equal_an_explicit_splice_from_the_tokens(name):
  member = small.MEMBERS[name]()
  keep = jnp.asarray(packing.keep_mask(small.HELD_OUT.tokens))[..., None]
  source, target = member.reads.input, member.reads.target
  holder = {}

  def read(x):
    holder['x'] = x
    return x

  def write(x):
    inputs = holder['x'] if target != source else x
    value = member.sae.decode(
        member.params, member.sae.encode(member.params, inputs)
    )
    return jnp.where(keep, value, x)

  spliced = losses(
      {target: write} | ({source: read} if source != target else {})
  )
  zeroed = losses({target: lambda x: jnp.where(keep, 0, x)})
  clean, mask, results_row = losses(), scored(), row(name)
  assert results_row['tokens_delta_loss'] == mask.sum()
  np.testing.assert_allclose(
      results_row['loss_clean'], clean[mask].mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
      results_row['loss_spliced'], spliced[mask].mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
      results_row['delta_loss'],
      (spliced - clean)[mask].mean(),
      rtol=1e-3,
      atol=1e-6,
  )
  np.testing.assert_allclose(
      results_row['loss_zero_ablation'], zeroed[mask].mean(), rtol=1e-5
  )


@pytest.mark.parametrize('site', ['resid_post', 'mlp_out', 'attn_heads'])
def test_exact_reconstruction_costs_nothing(site):
  results_row = row(f'exact {site}')
  assert (
      results_row['delta_loss'] == 0 and results_row['delta_loss_stderr'] == 0
  )
  assert results_row['fvu'] == 0 and results_row['gamma'] == 1
  assert (
      results_row['loss_recovered'] == results_row['loss_recovered_mean'] == 1
  )
  assert results_row['loss_zero_ablation'] != results_row['loss_clean']


def test_reconstructing_zero_is_zero_ablation():
  results_row = row('zero')
  assert results_row['loss_spliced'] == results_row['loss_zero_ablation']
  assert results_row['loss_recovered'] == 0
  assert results_row['dead_share'] == 1 and results_row['l0'] == 0
  assert results_row['fvu'] >= 1
  # The gamma of a zero reconstruction is 0 / 0.
  assert results_row['gamma'] is None


def test_reconstructing_the_mean_is_mean_ablation_and_an_fvu_of_one():
  results_row = row('mean')
  np.testing.assert_allclose(
      results_row['loss_spliced'], results_row['loss_mean_ablation'], rtol=1e-6
  )
  np.testing.assert_allclose(results_row['loss_recovered_mean'], 0, atol=1e-4)
  np.testing.assert_allclose(results_row['fvu'], 1, rtol=1e-5)


def test_members_are_spliced_at_their_own_layers():
  for name, layer in (('first layer', 0), ('last layer', 3)):
    results_row = row(name)
    assert results_row['layer'] == layer
    np.testing.assert_allclose(
        results_row['loss_clean'], row('random')['loss_clean'], rtol=1e-6
    )
    assert results_row['delta_loss'] != row('random')['delta_loss']


def test_pca_fvu_is_present_unless_the_sae_is_a_transcoder():
  assert row('transcoder')['pca_fvu'] is None
  assert 0 <= row('random')['pca_fvu'] <= row('mean')['pca_fvu']
  # At L0 = 0, PCA predicts the training mean.
  assert row('mean')['pca_fvu'] >= 1


def test_metrics_do_not_depend_on_the_batch_size_or_other_members():
  for name, results_row in zip(
      small.OTHERS, small.other_evaluation().rows, strict=True
  ):
    for key, value in results_row.items():
      if key.startswith('dead_'):
        continue
      if isinstance(value, float):
        np.testing.assert_allclose(
            value, row(name)[key], rtol=1e-4, atol=1e-6, err_msg=key
        )
      else:
        assert value == row(name)[key], key


def test_dead_latents_are_silent_over_the_window():
  results_row = small.other_evaluation().rows[0]
  assert (
      5 <= results_row['dead_window_tokens'] < results_row['tokens_evaluated']
  )
  assert results_row['dead_share'] >= row('second')['dead_share']
  assert row('second')['dead_window_tokens'] == results_row['tokens_evaluated']


def test_no_dead_share_is_reported_for_fewer_kept_tokens_than_the_window():
  enough = small.run(('zero',), dead_window_tokens=small.KEPT).rows[0]
  fewer = small.run(('zero',), dead_window_tokens=small.KEPT + 1).rows[0]
  default = small.run(('zero',)).rows[0]
  assert enough['dead_share'] == 1
  for results_row in (fewer, default):
    assert results_row['dead_share'] is None
    assert results_row['dead_window_tokens'] == small.KEPT
  heading, line = results.table([enough | fewer, enough]).splitlines()[1:3]
  assert heading.split()[-2:] == ['dead', 'dense']
  assert line.split()[-2] == '-'


def test_members_of_one_shape_share_their_programs():
  _, traced = small.traced_evaluation()
  # One program for the sums and one for the reconstruction.
  for name, members in (('random', 5), ('heads', 1)):
    sae = small.MEMBERS[name]().sae
    alike = [m for m in small.MEMBERS if small.MEMBERS[m]().sae == sae]
    assert len(alike) >= members
    assert traced.count(sae) == 2


def test_eight_devices_have_the_results_of_one():
  mesh = sharding.make_mesh(sharding.Config(data=4, tensor=2))
  names = ('second', 'transcoder')
  result_rows = small.run(
      names, mesh=mesh, lm_sequences=8, dead_window_tokens=small.KEPT
  ).rows
  for name, results_row in zip(names, result_rows, strict=True):
    assert results_row['tokens_evaluated'] == row(name)['tokens_evaluated']
    for key in ('l0', 'fvu', 'delta_loss', 'loss_clean', 'dead_share'):
      np.testing.assert_allclose(
          results_row[key], row(name)[key], rtol=1e-4, atol=1e-6, err_msg=key
      )


def make_several():
  """Returns a member that reads and reconstructs two layers."""
  taps = tuple(lm.Tap(n, lm.Site.RESID_POST) for n in (1, 2))
  sae = saes.make_sae(
      'jumprelu',
      saes.jumprelu.Config(
          pre_encoder_bias=False, threshold_parameter='linear'
      ),
      d_in=32,
      d_out=32,
      width=24,
  )
  params = sae.init_params(jax.random.key(0), initial_threshold=0.3)
  return evaluate.EvalMember(sae, params, lm.Reads(taps, taps))


@pytest.mark.parametrize(
    'member, message',
    [
        (lambda: small.make_member('resid_post', layer=4), 'layers 0 to 3'),
        (
            lambda: dataclasses.replace(
                small.make_exact('attn_heads'),
                reads=lm.make_reads('mlp_out', small.LAYER),
            ),
            '32 to 32 dimensions',
        ),
        (
            lambda: dataclasses.replace(
                small.make_member('resid_post'),
                reads=lm.Reads(
                    (lm.Tap(1, lm.Site.RESID_POST),),
                    (
                        lm.Tap(1, lm.Site.RESID_POST),
                        lm.Tap(2, lm.Site.RESID_POST),
                    ),
                ),
            ),
            'maps 16 to 16 dimensions, but .* has 16 to 32',
        ),
        (
            make_several,
            'SAEs with one tap are supported, not the targets layer_1.resid_post',
        ),
    ],
)
def test_an_sae_that_does_not_fit_the_model_is_refused(member, message):
  with pytest.raises(errors.UserError, match=message):
    evaluate.evaluate_members(tiny.model(), [member()], held_out=small.HELD_OUT)


def test_rows_have_the_documented_fields():
  wanted = (
      'model layer site width variant sparsity_coefficient target_l0 seed'
      ' tokens_trained tokens_evaluated l0 fvu delta_loss delta_loss_stderr'
      ' loss_clean loss_spliced loss_zero_ablation loss_mean_ablation'
      ' loss_recovered loss_recovered_mean gamma dead_share dense_share'
      ' dead_window_tokens tokens_delta_loss pca_fvu path lm_dtype'
  )
  assert set(wanted.split()) <= set(row('random'))
  assert row('random')['path'] == 'resid_post/0'
  assert row('random')['lm_dtype'] == 'float32'


def test_rows_above_an_saes_limit_are_left_out_of_all_its_numbers():
  norms = np.linalg.norm(small.activations('resid_post'), axis=-1)
  # Between two norms, so that rounding does not matter.
  half = len(norms) // 2
  limit = float(np.sort(norms)[half : half + 2].mean())
  member = small.make_member('resid_post')
  tap = member.reads.input
  limited = dataclasses.replace(
      member, reads=dataclasses.replace(member.reads, limits=((tap, limit),))
  )
  counts = []
  for evaluated in (member, limited):
    (row,) = evaluate.evaluate_members(
        tiny.model(), [evaluated], held_out=small.HELD_OUT
    ).rows
    counts.append((row['tokens_evaluated'], row['tokens_delta_loss']))
  (every, _), (kept, scored) = counts
  assert (every, kept) == (len(norms), int((norms <= limit).sum()))
  assert scored < counts[0][1]
