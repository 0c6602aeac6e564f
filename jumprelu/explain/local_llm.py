"""The language models of `jumprelu.lm` as judges and explainers.

A single integer is chosen by its probability after the prompt, without
generation. Explanations are generated greedily.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jumprelu import errors
from jumprelu.api import language_model
from jumprelu.explain import llm, prompts

_NEW_TOKENS = 40


class LocalLm:
  """A language model on this computer."""

  def __init__(self, model: language_model.LanguageModel):
    self._model = model

  @property
  def name(self) -> str:
    """The name of the model."""
    return self._model.name

  def answer(self, requests: Sequence[prompts.Request]) -> Iterator[llm.Answer]:
    """Yields the answers; prompts that are too long have an error."""
    for request in requests:
      try:
        yield llm.Answer(request.id, self._text(request))
      except errors.UserError as error:
        yield llm.Answer(request.id, '', str(error))

  def _text(self, request: prompts.Request) -> str:
    form = request.form
    if form.kind == 'text':
      made = self._model.generate(request.prompt + '\n', tokens=_NEW_TOKENS)
      text = self._model.tokenizer.decode(made.tokens.tolist())
      return text.strip().split('\n')[0]
    if form.count != 1:
      raise errors.UserError(
          f'{self.name}: chooses single integers only; set'
          ' --explain.per_prompt=1 and leave simulation out of --explain.kinds'
      )
    options = range(form.low, form.high + 1)
    ids = [self._model.token_id(str(option)) for option in options]
    logits = self._model.logits(request.prompt + '[')[-1]
    return f'[{options[int(np.argmax(logits[ids]))]}]'
