"""What an evaluation runs: how often, how far up, and without waiting."""

import collections

import jax
import pytest

from jumprelu import evals, lm
from jumprelu.evals import corpus_passes, evaluate, jitted
from jumprelu.evals import text as text_lib
from tests import small_evaluation as small
from tests.lm import tiny

# Three of one shape and target, and one of another of each.
_ALIKE = 3
_TARGETS = 2
_BATCHES = 3  # Of 4 rows, for 10; of training text 5.
_TRAIN_BATCHES = 5


def _members():
  alike = [small.make_member('resid_post', seed=i) for i in range(_ALIKE)]
  return [*alike, small.make_member('attn_heads')]


def _evaluate(members):
  return evaluate.evaluate_members(
      tiny.model(),
      members,
      held_out=small.HELD_OUT,
      train=small.TRAIN,
      config=evals.Config(
          tokens=10_000, delta_loss_tokens=10_000, lm_sequences=4
      ),
  )


@pytest.fixture
def made(monkeypatch):
  """The language model's programs that an evaluation makes, and their calls."""
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


def test_one_clean_forward_a_batch_and_one_tail_a_member(made):
  calls, compiled = made
  members = _members()
  _evaluate(members)
  # For the means to count from, for latents, for PCA and for losses.
  assert calls['forward'] == 1 + _BATCHES + _TRAIN_BATCHES + _BATCHES
  # Clean, zero and mean once a target, whatever the number of members.
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
  # Members of layer 1: the blocks above are not even there.
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
    # Reading a value of the device would be an error in a trace.
    jax.eval_shape(step, next(text_lib.batches(text)))
    seen.append(name)
    return over(text, step, name)

  monkeypatch.setattr(corpus_passes.text_lib, 'over', traced_over)
  _evaluate(_members())
  assert len(seen) == 3
