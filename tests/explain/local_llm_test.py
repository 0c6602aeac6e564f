"""A local model chooses the likeliest integer, and generates explanations."""

from jumprelu.explain import local_llm, prompts
from tests.api import conftest as api

model = api.model


def _request(prompt, form):
  return prompts.Request('detection', 'm', 0, prompt, form)


def test_the_integer_with_the_smallest_loss_is_chosen(model):
  judge = local_llm.LocalLm(model)
  form = prompts.Form('numbers', 1, 0, 5)
  texts = ['x = [0, 0, ', 'a[', 'for i in range(', 'assert f(1) == ']
  answers = list(judge.answer([_request(text, form) for text in texts]))
  chosen = [prompts.parse_numbers(a.text, form) for a in answers]
  for text, number in zip(texts, chosen, strict=True):
    losses = [model.loss(f'{text}[{i}')[-1] for i in range(6)]
    assert number == [losses.index(min(losses))]
  assert len({tuple(number or ()) for number in chosen}) > 1
  assert judge.name == 'gemma2_nano'


def test_an_explanation_is_one_generated_line(model):
  request = _request('def f(x):', prompts.Form('text'))
  (answer,) = local_llm.LocalLm(model).answer([request])
  made = model.generate('def f(x):\n', tokens=40).tokens
  text = model.tokenizer.decode(made.tolist())
  assert answer.text == text.strip().split('\n')[0] and not answer.error


def test_prompts_without_an_answer_have_an_error(model):
  one, three = (prompts.Form('numbers', n, 0, 1) for n in (1, 3))
  requests = [_request('word ' * 400, one), _request('x', three)]
  long, several = local_llm.LocalLm(model).answer(requests)
  assert long.text == several.text == ''
  assert 'context' in long.error
  assert '--explain.per_prompt=1' in several.error
