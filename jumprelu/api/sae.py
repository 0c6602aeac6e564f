"""The public SAE: a dictionary that finds its language model and its text."""

from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.api import dictionary, language_model, latents, models


class SAE(dictionary.Dictionary):
  """A sparse autoencoder on raw activations of a language model.

  Activation scales are folded in: `encode` reads activations as the model
  computes them, and `decode` returns activations in the same units. Results are
  NumPy arrays, unless the input is a JAX array: then they are JAX arrays, also
  inside `jit`, `grad` and `vmap`. They are float32, whatever the input's dtype.

  Attributes:
    path: Its path in the suite.
    site: `resid_post`, `mlp_out`, `attn_heads` or `transcoder`.
    layer: The layer that it reads, from 0.
    model: The name, folder or GGUF file of the language model.
    variant: A key of `jumprelu.VARIANTS`.
    l0: Mean number of active latents; None if unknown.
    l0_origin: The origin of `l0`: held-out text, training, or a folder's name.
    config: Everything that the files say: results and the training config.
    params: All arrays by name, float32.

  >>> sae.site, sae.layer, sae.width, sae.variant
  ('resid_post', 2, 512, 'jumprelu')
  >>> sae.W_dec.shape, sae.threshold.shape
  ((512, 128), (512,))
  """

  def load_lm(self, **options: Any) -> language_model.LanguageModel:
    """Returns the language model that the SAE was trained on.

    Options are those of `jumprelu.load_lm`.

    >>> sae.load_lm()
    LanguageModel(gemma2_nano, 4 layers, d_model 128; BOS is put before ...)
    """
    if self.model is None:
      raise errors.UserError(
          'the files do not name the language model: use jumprelu.load_lm'
      )
    return models.load_lm(self.model, **options)

  def latent(self, index: int | np.integer, **options: Any) -> latents.Latent:
    """Returns everything about one latent; options as in `examples`.

    The first call reads the text; later calls with other latents are fast.

    >>> sae.latent(172, k=3, tokens=10_000)
    latent 172 of SAE(gemma2_nano, resid_post, layer 2, 512 latents, ...)
    fires on ...% of ... tokens; mean ..., largest ..., threshold 1.61
    values 0 |...| ..., log scale
    promotes ' line' +0.77, 'lines' +0.77, 'line' +0.76
    suppresses 'CodecInfo' -0.72, '###' -0.65, ' generated' -0.62
    neighbours 289 (0.24), 77 (0.16), 95 (0.15)
    ...
    """
    return latents.describe(self, self.load_lm(), index, **options)

  def examples(
      self, index: int | np.integer, *, k: int = 10, **options: Any
  ) -> latents.Examples:
    """Returns the `k` strongest activations of one latent, one a document.

    Args:
      index: The latent.
      k: The number of examples.
      **options: `text` (as --data; default: the training text's held-out
        documents), `tokens` (positions to read, default 100,000), `window`
        (tokens shown on each side).

    >>> examples = sae.examples(172, text='stdlib', k=10, tokens=10_000)
    >>> len(examples), len(examples[0].pieces)
    (10, 21)
    """
    return latents.describe(
        self, self.load_lm(), index, k=k, **options
    ).examples
