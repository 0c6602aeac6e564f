"""Language models for interactive use: text in, activations and logits out."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jumprelu import data, errors, lm
from jumprelu.api import (
    attributions,
    dictionary,
    displays,
    generating,
    programs,
    results,
    texts,
)
from jumprelu.api import edits as edits_lib
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
      edits: Iterable[edits_lib.Edit] = (),
  ):
    self._model = model
    self.tokenizer = tokenizer
    self._spliced = spliced
    self._keep_error = keep_error
    self._edits = tuple(edits)

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
        **self._arguments(len(tokens)),
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
    return self._changed(spliced=sae, keep_error=keep_error)

  def with_edits(self, edits: Iterable[edits_lib.Edit]) -> 'LanguageModel':
    """Returns the model with edits in all its passes, after those it has.

    Args:
      edits: Edits of latents or along directions, of any sites and SAEs.

    Raises:
      UserError: An edit does not fit the model.

    >>> edit = jumprelu.Edit(sae, 172, op='add', value=20.0)
    >>> more = lm.with_edits([edit]).logits('def ') - lm.logits('def ')
    >>> bool(more[-1, lm.token_id(' line')] > 1)
    True
    """
    edits = (*self._edits, *edits)
    edits_lib.check(edits, self._model)
    return self._changed(edits=edits)

  def run(
      self,
      text: texts.Text,
      sae: Dictionary,
      *,
      edits: Iterable[edits_lib.Edit] = (),
  ) -> results.Activations:
    """Returns a text's activations as the SAE sees them.

    Args:
      text: A text, or token ids.
      sae: The SAE that encodes the activations of its site.
      edits: Edits of the pass. Activations at the tap of an edit are those
        before it, those at later taps and the logits are those after it.

    Raises:
      UserError: The SAE's sizes do not fit the model, or an edit does not.

    >>> acts = lm.run('with open(path) as f:\\n    return f.', sae=sae)
    >>> acts
    Activations(13 tokens, BOS included; SAE(gemma2_nano, resid_post, ...)
    >>> acts.tokens.shape, acts.latents.shape, acts.reconstruction.shape
    ((13,), (13, 512), (13, 128))
    >>> acts.error.shape, acts.logits.shape, acts.loss.shape
    ((13, 128), (13, 4096), (12,))
    """
    dictionary.check_fit(sae, self.config)
    if edits := tuple(edits):
      return self.with_edits(edits).run(text, sae)
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
    if self._spliced is not None or self._edits:
      raise errors.UserError(
          'attribute: use the model without SAEs and edits, because gradients'
          ' are those of the clean pass'
      )
    return attributions.attribute(
        self, acts, sae=sae, target=target, position=position
    )

  def generate(
      self,
      text: texts.Text,
      *,
      tokens: int = 20,
      temperature: int | float = 0.0,
      seed: int = 0,
      edits: Iterable[edits_lib.Edit] = (),
  ) -> results.Generation:
    """Returns a continuation, computed with a cache of keys and values.

    Args:
      text: The prompt, or its token ids.
      tokens: The number of new tokens; fewer if EOS is generated.
      temperature: 0 takes the likeliest token; above, tokens are sampled from
        the logits divided by it.
      seed: The seed of the samples.
      edits: Edits of the prompt's pass and of those of the new tokens.

    Raises:
      UserError: The prompt is empty, or longer than the context together with
        the new tokens, or an edit does not fit.

    >>> lm.generate('def ', tokens=20)
    Generation('def 0\\n            if self._state == 0:\\n ...')
    """
    if edits := tuple(edits):
      return self.with_edits(edits).generate(
          text, tokens=tokens, temperature=temperature, seed=seed
      )
    prompt = self.tokenize(text)
    tokens = generating.check(prompt, tokens, temperature, config=self.config)
    return generating.generate(
        self,
        prompt,
        tokens=tokens,
        temperature=temperature,
        seed=seed,
        **self._arguments(len(prompt), len(prompt) + tokens),
    )

  def _forward(self, tokens, taps):
    """Returns the results of a pass, on the host and without padding."""
    passed = programs.forward(
        self._model.config,
        self.params,
        jnp.asarray(texts.padded(tokens)),
        taps=tuple(sorted(set(taps))),
        **self._arguments(len(tokens)),
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

  def _changed(self, **changes):
    kept = {
        'spliced': self._spliced,
        'keep_error': self._keep_error,
        'edits': self._edits,
    }
    return LanguageModel(self._model, self.tokenizer, **kept | changes)

  def _arguments(self, length: int, limit: int | None = None) -> dict[str, Any]:
    """Returns the SAE and the edits as the compiled passes take them."""
    sae_params = spliced = None
    if (sae := self._spliced) is not None:
      sae_params = sae.to_raw(self._model)
      spliced = programs.Spliced(sae.sae, sae.reads, self._keep_error)
    edits = edits_lib.compiled(
        self._edits, self._model, length=length, limit=limit
    )
    return {'sae_params': sae_params, 'spliced': spliced} | edits._asdict()

  def __repr__(self) -> str:
    config = self.config
    changes = [] if self._spliced is None else [self._spliced]
    spliced = ''.join(f', with {x!r}' for x in (*changes, *self._edits))
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
    if self._edits:
      values['edits'] = ', '.join(map(repr, self._edits))
    return displays.fields('LanguageModel', values)

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    names = ('name', 'config', 'bos')
    return displays.constructor(self, names, path, subtree_renderer)
