"""Language models for interactive use: text in, activations and logits out."""

from collections.abc import Sequence
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import data, errors, lm
from jumprelu.api import (
    attributions,
    dictionary,
    displays,
    programs,
    results,
    texts,
)
from jumprelu.api import taps as taps_lib
from jumprelu.api.dictionary import Dictionary
from jumprelu.array_typing import Float, Int
from jumprelu.data import packing


class LanguageModel:
  """A language model with its tokenizer.

  BOS is put before every text, because Gemma was trained with it and its SAEs
  never saw a text without it. Token ids that already begin with BOS are used as
  they are. Results are NumPy arrays over the tokens of one text, BOS included.

  Attributes:
    name: The model's name.
    config: Its shapes.
    tokenizer: Text <-> token ids.
    bos: The id of BOS.
    params: The parameter tree, on the device.

  >>> lm
  LanguageModel(gemma2_nano, 4 layers, d_model 128; BOS is put before ...)
  """

  def __init__(
      self,
      model: lm.LanguageModel,
      tokenizer: data.Tokenizer,
      *,
      spliced: Dictionary | None = None,
      keep_error: bool = False,
  ):
    self._model = model
    self.tokenizer = tokenizer
    self._spliced = spliced
    self._keep_error = keep_error

  @property
  def name(self) -> str:
    """The model's name."""
    return self._model.name

  @property
  def config(self) -> lm.LmConfig:
    """The model's shapes."""
    return self._model.config

  @property
  def bos(self) -> int:
    """The id of BOS, the token before every text."""
    return packing.BOS

  @property
  def params(self) -> Any:
    """The parameter tree, on the device."""
    return self._model.params

  @property
  def model(self) -> lm.LanguageModel:
    """The model as the functions of `jumprelu.lm` take it."""
    return self._model

  def tokenize(self, text: texts.Text) -> Int[np.ndarray, ' tokens']:
    """Returns the token ids of a text, BOS first.

    Args:
      text: A text, or token ids with or without BOS. `[lm.bos]` is BOS alone.

    Raises:
      UserError: The text is empty or longer than the model's context, or an id
        is not in the vocabulary.

    >>> lm.tokenize('import os')
    array([  2, 688, 706], dtype=int32)
    """
    return texts.encode(self.tokenizer, text, config=self.config)

  def pieces(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """Returns the text of each token id; spaces are part of it.

    >>> lm.pieces([2, 688, 706])
    ['<s>', 'import', ' os']
    """
    return [self.tokenizer.piece(int(token)) for token in tokens]

  def token_id(self, token: str | int | np.integer) -> int:
    """Returns the id of a token that is passed as text or id.

    Raises:
      UserError: The text has several tokens, or there is no such id.

    >>> lm.token_id(' os')
    706
    """
    return texts.encode_one(self.tokenizer, token, config=self.config)

  def activations(
      self, text: texts.Text, taps: taps_lib.Taps
  ) -> dict[lm.Tap, Float[np.ndarray, 'tokens d_site']]:
    """Returns the activations of a text at each tap.

    Args:
      text: A text, or token ids.
      taps: One tap or several; also written as `(2, 'resid_post')` or
        `'layer_2.resid_post'`.

    >>> tap = jumprelu.Tap(2, jumprelu.Site.RESID_POST)
    >>> lm.activations('import os', tap)[tap].shape
    (3, 128)
    """
    several = taps_lib.parse(taps, config=self.config)
    return self._forward(self.tokenize(text), several).values

  def logits(self, text: texts.Text) -> Float[np.ndarray, 'tokens vocab']:
    """Returns the logits of each token's successor, after the soft cap.

    >>> logits = lm.logits('with open(path) as f:\\n    return f.')
    >>> sorted(lm.pieces(logits[-1].argsort()[-3:]))
    ['open', 'read', 'stat']
    """
    return self._forward(self.tokenize(text), ()).logits

  def loss(self, text: texts.Text) -> Float[np.ndarray, ' tokens_after_first']:
    """Returns the loss in nats of each token after the first one.

    >>> lm.loss('import os')
    array([5.5..., 2.4...], dtype=float32)
    """
    tokens = self.tokenize(text)
    losses = programs.losses(
        self._model.config,
        self.params,
        jnp.asarray(texts.padded(tokens)),
        self._splice_arguments(),
        spliced=self._splice_static(),
    )
    return np.asarray(losses[0, : len(tokens) - 1])

  def with_sae(
      self, sae: Dictionary, *, keep_error: bool = False
  ) -> 'LanguageModel':
    """Returns the model with an SAE's reconstruction in the SAE's place.

    BOS and EOS keep their activations, because SAEs are not trained on them.

    Args:
      sae: The SAE.
      keep_error: Adds the reconstruction error again, so that the results are
        those without the SAE; useful with edits of latents.

    Raises:
      UserError: The SAE's sizes do not fit the model, or the model has a
        spliced SAE already.

    >>> increase = lm.with_sae(sae).loss('import os\\n') - lm.loss('import os\\n')
    >>> bool(increase[-1] > 0.1)
    True
    """
    dictionary.check_fit(sae, self.config)
    if self._spliced is not None:
      raise errors.UserError(
          'with_sae: the model has a spliced SAE already, and only one can be'
          ' spliced'
      )
    return LanguageModel(
        self._model, self.tokenizer, spliced=sae, keep_error=keep_error
    )

  def run(self, text: texts.Text, sae: Dictionary) -> results.Activations:
    """Returns a text's activations as the SAE sees them.

    Args:
      text: A text, or token ids.
      sae: The SAE that encodes the activations of its site.

    Raises:
      UserError: The SAE's sizes do not fit the model.

    >>> acts = lm.run('with open(path) as f:\\n    return f.', sae=sae)
    >>> acts
    Activations(13 tokens, BOS included; SAE(gemma2_nano, resid_post, ...)
    >>> acts.tokens.shape, acts.latents.shape, acts.reconstruction.shape
    ((13,), (13, 512), (13, 128))
    >>> acts.error.shape, acts.logits.shape, acts.loss.shape
    ((13, 128), (13, 4096), (12,))
    """
    dictionary.check_fit(sae, self.config)
    tokens = self.tokenize(text)
    reads = sae.reads
    last = lm.Tap(self.config.layers - 1, lm.Site.RESID_POST)
    taps = tuple(sorted({*reads.taps, last}))
    return results.make(self, sae, tokens, self._forward(tokens, taps))

  def attribute(
      self,
      acts: results.Activations | texts.Text,
      *,
      target: str | int | np.integer,
      sae: Dictionary | None = None,
      position: int = -1,
  ) -> attributions.Attribution:
    """Returns the linear effect of each latent on a token's logit.

    The metric is the target's logit minus the mean of all logits. Its gradient
    at the SAE's target activations, times each term of the reconstruction, is
    the term's effect to first order (Marks et al., arXiv 2403.19647). Effects
    of latents, biases and errors add up to the gradient times the activations
    (`Attribution.total`), the metric's slope if all activations at the site
    are scaled together. `jumprelu evaluate --measures=attribution` sums the
    same effects over a text.

    Args:
      acts: The result of `run`, or a text.
      target: The token, as text or id, whose logit is explained.
      sae: The SAE; that of `acts` if None.
      position: The token after which the target is predicted.

    >>> lm.attribute(acts, target='open', sae=sae)
    Attribution of 'open' after token 12 '.': logit minus mean 9.66
    errors -1.0..., biases +0.7..., latents +0.3..., largest:
      +0.6...  latent 453 at 12 '.'
      -0.5...  latent 183 at 12 '.'
      ...
    """
    if self._spliced is not None:
      raise errors.UserError(
          'attribute: use the model without the spliced SAE, because gradients'
          ' are those of the clean pass'
      )
    if not isinstance(acts, results.Activations):
      if sae is None:
        raise errors.UserError('attribute: pass sae=, or the result of run')
      acts = self.run(acts, sae)
    elif sae is not None and sae is not acts.sae:
      acts = self.run(acts.tokens, sae)
    count = len(acts.tokens)
    if not -count <= position < count:
      raise errors.UserError(
          f'position {position}: the text has tokens 0 to {count - 1}'
      )
    return attributions.attribute(
        self, acts, target=self.token_id(target), position=position % count
    )

  def generate(
      self,
      text: texts.Text,
      *,
      tokens: int = 20,
      temperature: int | float = 0.0,
      seed: int = 0,
  ) -> results.Generation:
    """Returns a continuation, computed with a cache of keys and values.

    Args:
      text: The prompt, or its token ids.
      tokens: The number of new tokens; fewer if EOS is generated.
      temperature: 0 takes the likeliest token; above, tokens are sampled from
        the logits divided by it.
      seed: The seed of the samples.

    Raises:
      UserError: The prompt is empty, or longer than the context together with
        the new tokens.

    >>> lm.generate('def ', tokens=20)
    Generation('def 0\\n            if self._state == 0:\\n ...')
    """
    prompt, tokens = self.tokenize(text), operator.index(tokens)
    if tokens < 1 or not temperature >= 0:
      name, value, least = (
          ('tokens', tokens, 1)
          if tokens < 1
          else ('temperature', temperature, 0)
      )
      raise errors.UserError(
          f'generate: {name}={value}, but {least} is the least'
      )
    if len(prompt) + tokens > self.config.context:
      raise errors.UserError(
          f'generate: {len(prompt)} tokens of the prompt and tokens={tokens},'
          f' but the context of {self.name} has {self.config.context}'
      )
    sampling = programs.Sampling(jnp.float32(temperature), jax.random.key(seed))
    made = programs.generate(
        self._model.config,
        self.params,
        jnp.asarray(texts.padded(prompt)[0]),
        jnp.int32(len(prompt)),
        jnp.int32(tokens),
        sampling,
        sae_params=self._splice_arguments(),
        room=texts.room(tokens),
        spliced=self._splice_static(),
    )
    count = int(made.count)
    return results.Generation(
        prompt,
        np.asarray(made.tokens[:count]),
        np.asarray(made.logits[:count]),
        self.tokenizer,
    )

  def _forward(self, tokens, taps):
    """Returns the results of a pass, on the host and without padding."""
    passed = programs.forward(
        self._model.config,
        self.params,
        jnp.asarray(texts.padded(tokens)),
        self._splice_arguments(),
        taps=tuple(sorted(set(taps))),
        spliced=self._splice_static(),
    )
    count = len(tokens)
    values = {
        tap: np.asarray(x[0, :count], np.float32)
        for tap, x in passed.values.items()
    }
    return results.Passed(
        values,
        np.asarray(passed.logits[0, :count]),
        np.asarray(passed.losses[0, : count - 1]),
    )

  def _splice_arguments(self):
    return None if self._spliced is None else self._spliced.to_raw(self._model)

  def _splice_static(self):
    if self._spliced is None:
      return None
    spliced = self._spliced
    return programs.Spliced(spliced.sae, spliced.reads, self._keep_error)

  def __repr__(self) -> str:
    config = self.config
    spliced = '' if self._spliced is None else f', with {self._spliced!r}'
    return (
        f'LanguageModel({self.name}, {config.layers} layers, d_model'
        f' {config.d_model}; BOS is put before every text{spliced})'
    )

  def _repr_html_(self) -> str:
    config = self.config
    values = {
        'name': self.name,
        'layers': config.layers,
        'd_model': config.d_model,
        'vocabulary': config.vocab,
        'context': f'{config.context} tokens',
        'BOS': f'{self.bos}, put before every text',
    }
    if self._spliced is not None:
      error = ', error kept' if self._keep_error else ''
      values['spliced'] = f'{self._spliced!r}{error}'
    return displays.fields('LanguageModel', values)

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = ('name', 'config', 'bos')
    return displays.constructor(self, names, path, subtree_renderer)


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
