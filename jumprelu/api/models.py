"""Language models by name, kept in memory."""

import functools

import jax.numpy as jnp

from jumprelu import data, errors, lm
from jumprelu.api.language_model import LanguageModel


@functools.lru_cache(maxsize=4)
def load_lm(model: str, *, dtype: str = 'float32') -> LanguageModel:
  """Returns a language model, kept in memory for the next call.

  Args:
    model: A known name, such as gemma2_nano or gemma2_2b, a folder, or the path
      of a GGUF file.
    dtype: float32 or bfloat16.

  >>> jumprelu.load_lm('gemma2_nano')
  LanguageModel(gemma2_nano, 4 layers, d_model 128; BOS is put before ...)
  """
  if dtype not in ('float32', 'bfloat16'):
    raise errors.UserError(f'dtype={dtype!r}: use float32 or bfloat16')
  loaded = lm.load(model, dtype=jnp.dtype(dtype))
  tokenizer = data.Tokenizer(loaded.tokenizer_path, rows=loaded.config.vocab)
  return LanguageModel(loaded, tokenizer)
