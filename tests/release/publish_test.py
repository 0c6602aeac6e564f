"""Releases of runs: test vectors, stored evaluations and provenance."""

import dataclasses
import hashlib
import json
import pathlib
import shlex
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jumprelu import errors, evals, lm, saes
from jumprelu.data import packing
from jumprelu.evals import evaluate
from jumprelu.evals import text as text_lib
from jumprelu.files import dotted
from jumprelu.ops import products
from jumprelu.release import publish
from jumprelu.training import (
    config,
    load_run,
    resume,
    run_digest,
    suite,
)
from tests.lm import tiny

LAYER = 1


class Cache:
  """A token cache in memory."""

  user_prefix = ()

  def __init__(self):
    self.tokens = np.asarray(tiny.batch(sequences=6).tokens, np.int32).copy()
    self.tokens[:, -1] = packing.EOS
    self.sequence_length = self.tokens.shape[1]
    self.tokens[5, 4:] = packing.PAD

  def __len__(self):
    return len(self.tokens)

  def tokens_at(self, indices):
    return self.tokens[indices]


def make_run(*, input_gain):
  """Returns an untrained run with two members and no directory."""
  members, folded = [], []
  for site, d_in, d_out in (('attn_heads', 32, 32), ('transcoder', 16, 16)):
    sae = saes.make_sae(
        'jumprelu',
        saes.jumprelu.Config(),
        d_in=d_in,
        d_out=d_out,
        width=24,
        transcoder=site == 'transcoder',
    )
    params = sae.init_params(jax.random.key(0), initial_threshold=0.1)
    members.append(
        load_run.TrainedMember(
            suite.Member(site, LAYER, 24, 'jumprelu', 1e-3, 0.0, 0, 1e-3, 0.1),
            sae,
            {k: np.asarray(v) for k, v in params.items()},
            lm.make_reads(site, LAYER, input_gain=input_gain),
            input_scale=2.0,
            target_scale=3.0,
            meta={'counts': {'tokens_trained': 1}},
        )
    )
    folded.append(sae.fold(params, input_scale=2.0, target_scale=3.0))
  return publish.Run(
      pathlib.Path('none'),
      config.resolve({'layer': LAYER, 'input_gain': input_gain}),
      members,
      folded,
      tiny.model(),
      types.SimpleNamespace(held_out=Cache()),
      None,
  )


def expected_inputs(site):
  """Returns the activations of the cache, [rows, positions, d_site]."""
  model, tokens = tiny.model(), jnp.asarray(Cache().tokens)
  tap = lm.Tap(LAYER, site)
  values = jax.jit(
      lambda params: lm.activations(
          model,
          params,
          tokens,
          positions=jnp.broadcast_to(
              jnp.arange(12, dtype=jnp.int32)[None], tokens.shape
          ),
          segments=(tokens != 0).astype(jnp.int32),
          taps=(tap,),
      )
  )(model.params)
  return np.asarray(values[tap])


def test_test_vectors_are_raw_activations_of_kept_held_out_tokens():
  by_reads = publish.held_out_inputs(make_run(input_gain=True), rows=16)
  inputs = {reads.name: value for reads, value in by_reads.items()}
  assert inputs['attn_heads'].shape == (16, 32)
  assert inputs['transcoder'].shape == (16, 16)
  keep = packing.keep_mask(Cache().tokens)
  for site, name in (
      (lm.Site.ATTN_HEADS, 'attn_heads'),
      (lm.Site.MLP_IN, 'transcoder'),
  ):
    pool = expected_inputs(site)[keep]
    distance = np.abs(inputs[name][:, None] - pool[None]).max(axis=-1)
    assert (distance.min(axis=1) < 1e-4).all()
    assert len(set(distance.argmin(axis=1))) == 16


def test_without_the_gain_a_transcoder_reads_the_bare_norm():
  run = make_run(input_gain=False)
  x = publish.held_out_inputs(run, rows=16)[run.members[1].reads]
  # The norm without its gain has a mean square of 1.
  np.testing.assert_allclose(np.square(x).mean(axis=1), 1.0, rtol=1e-3)


@pytest.mark.parametrize('two_encoders', [False, True])
def test_parameters_for_the_tap_with_gain_give_the_same_latents(two_encoders):
  run = make_run(input_gain=False)
  gain = 1 + np.asarray(
      run.model.params[f'layer_{LAYER}']['pre_ffw_norm']['scale']
  )
  x = publish.held_out_inputs(run, rows=16)[run.members[1].reads]
  sae, params = run.folded[1]
  if two_encoders:
    config = saes.gated.Config(tied=False)
    sae = saes.make_sae(
        'gated', config, d_in=16, d_out=16, width=24, transcoder=True
    )
    params = sae.init_params(jax.random.key(0), initial_threshold=0.1)
  member = evaluate.EvalMember(sae, params, run.members[1].reads)
  converted = evaluate.params_with_gain(run.model, member)
  latents = sae.encode(params, jnp.asarray(x))
  assert 0 < (latents > 0).mean() < 1
  np.testing.assert_allclose(
      sae.encode(converted, jnp.asarray(x * gain)),
      latents,
      rtol=1e-4,
      atol=1e-4,
  )


def test_parameters_without_a_missing_gain_are_unchanged():
  for site, gain in (('attn_heads', False), ('transcoder', True)):
    run = make_run(input_gain=gain)
    member = publish.eval_members(run)[site == 'transcoder']
    converted = evaluate.params_with_gain(run.model, member)
    assert converted is member.params


def test_an_evaluation_is_reused_only_for_the_same_checkpoint(
    tmp_path, monkeypatch
):
  evaluated = []

  def evaluate_members(model, members, **kwargs):
    evaluated.append([member.meta['seed'] for member in members])
    rows = [{'l0': 3.0 + i, 'fvu': None} for i in range(len(members))]
    return evaluate.Evaluation(rows, [np.full(24, 0.125, np.float32)] * 2)

  monkeypatch.setattr(evaluate, 'evaluate_members', evaluate_members)
  run = make_run(input_gain=True)._replace(path=tmp_path)
  run.prepared.held_out.digest = 'a'
  run.prepared.train = types.SimpleNamespace(digest='a')

  def at(step):
    meta = {'counts': {'step': step, 'tokens_trained': 100 * step}}
    return run._replace(members=[m._replace(meta=meta) for m in run.members])

  first = publish.evaluate_run(at(5))
  again = publish.evaluate_run(at(5))
  assert len(evaluated) == 1
  assert again.rows == first.rows
  np.testing.assert_array_equal(again.firing_frequency, first.firing_frequency)
  publish.evaluate_run(at(6))
  assert len(evaluated) == 2
  run.prepared.held_out.digest = 'b'
  publish.evaluate_run(at(6))
  assert len(evaluated) == 3
  fewer = config.resolve({'layer': LAYER, 'eval.tokens': 2048})
  publish.evaluate_run(at(6)._replace(config=fewer))
  assert len(evaluated) == 4


def test_an_interrupted_evaluation_of_a_run_resumes(
    tmp_path, monkeypatch, capsys
):
  run = make_run(input_gain=True)._replace(path=tmp_path)
  run.prepared.held_out.digest = 'a'
  run.prepared.train = _NoText()
  meta = {'counts': {'step': 5, 'tokens_trained': 100}}
  run = run._replace(members=[m._replace(meta=meta) for m in run.members])
  over = text_lib.over

  def stopping(text, step, name):
    if name == 'evaluate: losses':
      raise errors.Interrupted(errors.EXIT_PREEMPTED)
    yield from over(text, step, name)

  with monkeypatch.context() as patch:
    patch.setattr(text_lib, 'over', stopping)
    with pytest.raises(errors.Interrupted):
      publish.evaluate_run(run)
  assert list(tmp_path.glob('evaluation.partial/*/latents.npz'))
  rows = publish.evaluate_run(run).rows
  assert 'evaluate: latents resumes at batch 1' in capsys.readouterr().err
  assert rows == publish.evaluate_members(run).rows
  assert sorted(p.name for p in tmp_path.iterdir()) == ['evaluation']


class _NoText:
  digest = ''

  def __len__(self):
    return 0


def _other_params(run):
  (sae, params), other = run.folded
  changed = params | {'b_dec': params['b_dec'].at[0].add(1e-6)}
  return run._replace(folded=[(sae, changed), other])


def _other_sae(run):
  (sae, params), other = run.folded
  changed = dataclasses.replace(
      sae, config=dataclasses.replace(sae.config, kernel='triangle')
  )
  return run._replace(folded=[(changed, params), other])


def _other_lm(run):
  params = dict(run.model.params)
  params['final_norm'] = jax.tree.map(lambda x: x + 1, params['final_norm'])
  return run._replace(model=dataclasses.replace(run.model, params=params))


def _other_train_text(run):
  prepared = types.SimpleNamespace(
      held_out=run.prepared.held_out, train=types.SimpleNamespace(digest='b')
  )
  return run._replace(prepared=prepared)


def _other_config(run, **changes):
  return run._replace(config=dataclasses.replace(run.config, **changes))


INGREDIENTS = {
    'metrics': lambda run, patch: patch(evals, 'VERSION', 99, raising=False)
    or run,
    'platform': lambda run, patch: (
        patch(jax, 'default_backend', lambda: 'tpu') or run
    ),
    'precision of the process': lambda run, patch: (
        patch(
            products,
            'precision',
            lambda name: jax.default_matmul_precision('bfloat16'),
        )
        or run
    ),
    'precision of the run': lambda run, _: _other_config(
        run, matmul_precision='highest'
    ),
    'dtype': lambda run, _: _other_config(run, lm_dtype='bfloat16'),
    'parameters': lambda run, _: _other_params(run),
    'variant': lambda run, _: _other_sae(run),
    'language model': lambda run, _: _other_lm(run),
    'text of the baseline': lambda run, _: _other_train_text(run),
    'layer': lambda run, _: _other_config(run, layer=2),
}


@pytest.mark.parametrize('name', INGREDIENTS)
def test_an_evaluation_is_recomputed_when_an_ingredient_changes(
    tmp_path, monkeypatch, name
):
  evaluated = []

  def evaluate_members(model, members, **_):
    evaluated.append(len(members))
    rows = [{'l0': 3.0}] * 2
    return evaluate.Evaluation(rows, [np.full(24, 0.125, np.float32)] * 2)

  monkeypatch.setattr(evaluate, 'evaluate_members', evaluate_members)
  run = _other_config(make_run(input_gain=True), lm_dtype='float32')
  meta = {'counts': {'step': 5, 'tokens_trained': 500}}
  run = run._replace(
      path=tmp_path, members=[m._replace(meta=meta) for m in run.members]
  )
  run.prepared.held_out.digest = 'a'
  run.prepared.train = types.SimpleNamespace(digest='a')
  for _ in range(2):
    publish.evaluate_run(run)
  assert len(evaluated) == 1
  with monkeypatch.context() as patched:
    publish.evaluate_run(INGREDIENTS[name](run, patched.setattr))
  assert len(evaluated) == 2
  # The stored evaluation is now that of the changed run.
  publish.evaluate_run(run)
  assert len(evaluated) == 3


def test_the_run_digest_ignores_fields_without_effect_on_results():
  def digest(**changes):
    return run_digest.run_digest(config.resolve(changes))

  assert digest() == digest(**{'mesh.tensor': 2, 'corpus.cache_dir': '/a'})
  assert digest() == digest(**{'checkpoint.keep': 9, 'eval.tokens': 2048})
  assert digest() == digest(backend='oracle')
  assert digest() != digest(layer=3)
  assert digest() != digest(**{'optim.learning_rate': 1e-4})


def test_a_run_of_format_1_has_the_same_digest():
  made = config.resolve({'layer': 3})
  fields = {
      path: leaf.value
      for path, leaf in dotted.leaves(made).items()
      if not dotted.is_among(path, resume.SOFT)
  }
  for later in (
      'layers',
      'affine_skip',
      'init_from',
      'corpus.max_bad_rows',
      'stream.center',
      'stream.max_norm',
      'optim.update_clip',
  ):
    del fields[later]
  fields['path'] = 'auto'  # The name and default of the field in format 1.
  text = json.dumps(fields, sort_keys=True, default=str)
  digest = hashlib.sha256(text.encode()).hexdigest()
  assert run_digest.run_digest(made) == digest


def test_the_commands_on_the_card_reproduce_the_config():
  from jumprelu.run import flags, main, train

  made = config.resolve(
      {
          'recipe': 'paper',
          'layer': 3,
          'sites': ('mlp_out', 'transcoder'),
          'target_l0': (20.0, 50.0),
          'data': 'my notes.txt',
          'corpus.cache_dir': '/home/somebody/cache',
      }
  )
  text = run_digest.commands(made)
  assert 'somebody' not in text
  first, second = text.split('\njumprelu release ')
  argv = [word for word in shlex.split(first) if word.strip()]
  assert argv[:2] == ['jumprelu', 'train']
  fv = main._new_flags()
  train.define_flags(fv)
  main.parse(fv, argv[2:])
  again = flags.build(fv, config.resolve(), config.resolve)
  assert run_digest.run_digest(again) == run_digest.run_digest(made)
  assert second == '--run=RUN --out=RELEASE'


def test_a_release_contains_no_local_path():
  made = config.resolve(
      {
          'layer': 1,
          'data': '/home/alice/texts/notes.txt,~/b.jsonl,tokens:/data/ids,c.txt',
          'store': '/home/alice/acts',
          'corpus.cache_dir': '/home/alice/cache',
          'corpus.data_dir': '/home/alice/tfds',
      }
  )
  published = run_digest.portable(made)
  assert published.data == 'notes.txt,b.jsonl,tokens:ids,c.txt'
  for text in (config.to_json(published), run_digest.commands(made)):
    assert 'alice' not in text and '/data' not in text
  assert run_digest.portable(published) == published


@pytest.mark.parametrize(
    'text', ['stdlib', 'tfds:c4/en', 'gs://bucket/a.jsonl']
)
def test_texts_with_a_global_name_keep_it(text):
  made = config.resolve({'layer': 1, 'data': text})
  assert run_digest.portable(made).data == text
