"""Programs that an evaluation runs, and their numbers of calls."""

import collections

import jax
import pytest

from jumprelu import evals, lm, sharding
from jumprelu.evals import corpus_passes, evaluate, jitted
from jumprelu.evals import text as text_lib
from tests import small_evaluation as small
from tests.lm import tiny

# Three members have the same shape and target; a fourth differs in both.
_ALIKE = 3
_TARGETS = 2
# Batches of 4 rows, of the 10 held-out rows and of the training rows.
_BATCHES = 3
_TRAIN_BATCHES = 5


def _members():
  alike = [small.make_member('resid_post', seed=i) for i in range(_ALIKE)]
  return [*alike, small.make_member('attn_heads')]


def _evaluate(members, mesh=None):
  return evaluate.evaluate_members(
      tiny.model(),
      members,
      mesh=mesh,
      held_out=small.HELD_OUT,
      train=small.TRAIN,
      config=evals.Config(
          tokens=10_000, delta_loss_tokens=10_000, lm_sequences=4
      ),
  )


@pytest.fixture
def made(monkeypatch):
  """Returns the calls and the compiled programs of the language model."""
  calls, compiled = collections.Counter(), collections.defaultdict(list)

  def counting(name, make):
    def counted_make(*args, **kwargs):
      program = make(*args, **kwargs)
      compiled[name].append(program.func)

      def counted(*args):
        calls[name] += 1
        return program(*args)

      return counted

    return counted_make

  for name in ('forward', 'spliced_losses'):
    monkeypatch.setattr(jitted, name, counting(name, getattr(jitted, name)))
  return calls, compiled


@pytest.mark.parametrize('devices', [None, 1, 2])
def test_each_batch_has_one_clean_forward_and_one_tail_per_member(
    made, devices
):
  calls, compiled = made
  members = _members()
  mesh = None
  if devices:
    config = sharding.Config(data=devices)
    mesh = sharding.make_mesh(config, devices=jax.devices()[:devices])
  _evaluate(members, mesh)
  # Forward passes for the first means, latents, PCA and losses.
  assert calls['forward'] == 1 + _BATCHES + _TRAIN_BATCHES + _BATCHES
  # Clean, zero and mean passes run once per target, not per member.
  assert calls['spliced_losses'] == _BATCHES * (3 * _TARGETS + len(members))
  assert len(compiled['forward']) == 1
  assert len(compiled['spliced_losses']) == _TARGETS
  for program in compiled['forward'] + compiled['spliced_losses']:
    assert program._cache_size() == 1


def test_the_clean_forward_runs_no_block_above_the_last_tap():
  model = tiny.model()
  layers = {f'layer_{i}': model.params[f'layer_{i}'] for i in range(2)}
  params = {'embedder': model.params['embedder'], **layers}
  only = lm.LanguageModel(model.config, params, model.tokenizer_path, 2)
  # A pass above layer 1 would fail, because those parameters are missing.
  forward = jitted.forward(only, [lm.Tap(1, lm.Site.RESID_POST)])
  text = text_lib.sample(small.HELD_OUT, 48, sequences=4)
  tokens = next(text_lib.batches(text))
  assert set(forward(tokens).values) == {lm.Tap(1, lm.Site.RESID_POST)}


def test_members_of_one_shape_are_compiled_once():
  jitted.member_sums.clear_cache()
  jitted.reconstruct.clear_cache()
  _evaluate(_members())
  assert jitted.member_sums._cache_size() == 2
  assert jitted.reconstruct._cache_size() == 2


def test_no_step_waits_for_the_device(monkeypatch):
  over, seen = text_lib.over, []

  def traced_over(text, step, name):
    # Reading a device value raises an error during tracing.
    jax.eval_shape(step, next(text_lib.batches(text)))
    seen.append(name)
    return over(text, step, name)

  monkeypatch.setattr(corpus_passes.text_lib, 'over', traced_over)
  _evaluate(_members())
  assert len(seen) == 3
