"""Continuations of prompts (`LanguageModel.generate`)."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.api import programs, results, texts
from jumprelu.array_typing import Int


def check(
    prompt: Int[np.ndarray, ' tokens'],
    tokens: Any,
    temperature: Any,
    *,
    config: lm.LmConfig,
) -> int:
  """Returns the number of new tokens.

  Raises:
    UserError: The number or the temperature is too small, or the context of the
      model is too short.
  """
  tokens = operator.index(tokens)
  if tokens < 1 or not temperature >= 0:
    name, value, least = (
        ('tokens', tokens, 1) if tokens < 1 else ('temperature', temperature, 0)
    )
    raise errors.UserError(
        f'generate: {name}={value}, but {least} is the least'
    )
  if len(prompt) + tokens > config.context:
    raise errors.UserError(
        f'generate: {len(prompt)} tokens of the prompt and tokens={tokens},'
        f' but the context of {config.name} has {config.context}'
    )
  return tokens


def generate(
    model: Any,
    prompt: Int[np.ndarray, ' tokens'],
    *,
    tokens: int,
    temperature: int | float,
    seed: int,
    **arguments: Any,
) -> results.Generation:
  """Returns a continuation of `prompt` by a `LanguageModel`.

  Args:
    model: The language model.
    prompt: The token ids of the prompt.
    tokens: The largest number of new tokens.
    temperature: 0 takes the likeliest token.
    seed: The seed of the samples.
    **arguments: The SAE and the edits, as `programs.generate` takes them.
  """
  sampling = programs.Sampling(jnp.float32(temperature), jax.random.key(seed))
  made = programs.generate(
      model.config,
      model.params,
      jnp.asarray(texts.padded(prompt)[0]),
      jnp.int32(len(prompt)),
      jnp.int32(tokens),
      sampling,
      room=texts.room(tokens),
      **arguments,
  )
  count = int(made.count)
  return results.Generation(
      prompt,
      np.asarray(made.tokens[:count]),
      np.asarray(made.logits[:count]),
      model.tokenizer,
  )
