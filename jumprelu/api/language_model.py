"""Language models for interactive use: text in, activations and logits out."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import data, errors, lm
from jumprelu.api import displays, programs, results
from jumprelu.api.dictionary import Dictionary
from jumprelu.array_typing import Float, Int
from jumprelu.data import packing

# Texts are padded to a power of two of at least this length, so that few
# programs are compiled.
_LEAST_LENGTH = 16

Text = str | Sequence[int | np.integer] | np.ndarray


class LanguageModel:
  """A language model with its tokenizer.

  BOS is put before every text, because Gemma was trained with it and its SAEs
  never saw a text without it. Token ids that already begin with BOS are used as
  they are. Results are NumPy arrays over the tokens of one text, BOS included.

  Attributes:
    name: The model's name.
    config: Its shapes.
    tokenizer: Text <-> token ids.
    params: The parameter tree, on the device.
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

  def tokenize(self, text: Text) -> Int[np.ndarray, ' tokens']:
    """Returns the token ids of a text, BOS first.

    Args:
      text: A text, or token ids with or without BOS. `[lm.bos]` is BOS alone.

    Raises:
      UserError: The text is empty or longer than the model's context, or an id
        is not in the vocabulary.
    """
    ids = self._ids(text)
    if ids[0] != packing.BOS:
      ids = [packing.BOS, *ids]
    if len(ids) > self.config.context:
      raise errors.UserError(
          f'{len(ids)} tokens, but the context of {self.name} has'
          f' {self.config.context}: shorten the text'
      )
    bad = [i for i in ids if not 0 <= i < self.config.vocab]
    if bad or packing.PAD in ids:
      raise errors.UserError(
          f'token id {(bad or [packing.PAD])[0]}: ids must be from 1 to'
          f' {self.config.vocab - 1}'
      )
    return np.asarray(ids, np.int32)

  def _ids(self, text: Text) -> list[int]:
    """Returns token ids, without BOS unless the argument had it."""
    if isinstance(text, str):
      ids = self.tokenizer.encode(text)
    else:
      array = np.asarray(text)
      if array.ndim != 1 or array.size and array.dtype.kind not in 'iu':
        raise errors.UserError(
            'pass one text as a str, or its token ids as a list of integers'
        )
      ids = array.tolist()
    if not ids:
      raise errors.UserError(
          f'the text is empty; [{packing.BOS}] is BOS alone, as token ids'
      )
    return ids

  def pieces(self, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """Returns the text of each token id; spaces are part of it."""
    return [self.tokenizer.piece(int(token)) for token in tokens]

  def activations(
      self, text: Text, taps: Sequence[lm.Tap] | lm.Tap
  ) -> dict[lm.Tap, Float[np.ndarray, 'tokens d_site']]:
    """Returns the activations of a text at each tap.

    Args:
      text: A text, or token ids.
      taps: One tap or several: `jumprelu.Tap(2, jumprelu.Site.RESID_POST)`.
    """
    several = (taps,) if isinstance(taps, lm.Tap) else tuple(taps)
    return self._forward(self.tokenize(text), several).values

  def logits(self, text: Text) -> Float[np.ndarray, 'tokens vocab']:
    """Returns the logits of each token's successor, after the soft cap."""
    return self._forward(self.tokenize(text), ()).logits

  def loss(self, text: Text) -> Float[np.ndarray, ' tokens_after_first']:
    """Returns the loss in nats of each token after the first one."""
    tokens = self.tokenize(text)
    losses = programs.losses(
        self._model.config,
        self.params,
        jnp.asarray(self._padded(tokens)),
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
    """
    self._check_fit(sae)
    return LanguageModel(
        self._model, self.tokenizer, spliced=sae, keep_error=keep_error
    )

  def run(self, text: Text, sae: Dictionary) -> 'results.Activations':
    """Returns a text's activations as the SAE sees them.

    Args:
      text: A text, or token ids.
      sae: The SAE that encodes the activations of its site.

    Raises:
      UserError: The SAE's sizes do not fit the model.
    """
    self._check_fit(sae)
    tokens = self.tokenize(text)
    reads = sae.reads
    last = lm.Tap(self.config.layers - 1, lm.Site.RESID_POST)
    taps = tuple(sorted({*reads.taps, last}))
    return results.make(self, sae, tokens, self._forward(tokens, taps))

  def attribute(
      self,
      acts: 'results.Activations | Text',
      *,
      target: str | int,
      sae: Dictionary | None = None,
      position: int = -1,
  ) -> 'results.Attribution':
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
    return results.attribute(
        self, acts, target=self._token(target), position=position % count
    )

  def generate(
      self,
      text: Text,
      *,
      tokens: int = 20,
      temperature: int | float = 0.0,
      seed: int = 0,
  ) -> 'results.Generation':
    """Returns a continuation, computed with a cache of keys and values.

    Args:
      text: The prompt, or its token ids.
      tokens: The number of new tokens; fewer if EOS is generated.
      temperature: 0 takes the likeliest token; above, tokens are sampled from
        the logits divided by it.
      seed: The seed of the samples.
    """
    prompt = self.tokenize(text)
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
        jnp.asarray(self._padded(prompt)[0]),
        jnp.int32(len(prompt)),
        jnp.int32(tokens),
        sampling,
        sae_params=self._splice_arguments(),
        room=_room(tokens),
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
        jnp.asarray(self._padded(tokens)),
        self._splice_arguments(),
        taps=tuple(sorted(set(taps))),
        spliced=self._splice_static(),
    )
    count = len(tokens)
    values = {
        tap: np.asarray(x[0, :count], np.float32)
        for tap, x in passed.values.items()
    }
    return programs.Forward(
        values,
        np.asarray(passed.logits[0, :count]),
        np.asarray(passed.losses[0, : count - 1]),
    )

  def _padded(self, tokens, *, more: int = 0) -> np.ndarray:
    """Returns a row of tokens with padding for at least `more` tokens."""
    size = _room(len(tokens) + more)
    padded = np.full((1, size), packing.PAD, np.int32)
    padded[0, : len(tokens)] = tokens
    return padded

  def _splice_arguments(self):
    return None if self._spliced is None else self._spliced.to_raw(self._model)

  def _splice_static(self):
    if self._spliced is None:
      return None
    spliced = self._spliced
    return programs.Spliced(spliced.sae, spliced.reads, self._keep_error)

  def _token(self, target: str | int) -> int:
    """Returns the id of a token that is given as text or id."""
    ids = self.tokenizer.encode(target) if isinstance(target, str) else [target]
    if len(ids) != 1:
      raise errors.UserError(
          f'{target!r} is {len(ids)} tokens {self.pieces(ids)}; choose one, as'
          ' text or id'
      )
    if not 0 < ids[0] < self.config.vocab:
      raise errors.UserError(
          f'token id {ids[0]}: ids must be from 1 to {self.config.vocab - 1}'
      )
    return int(ids[0])

  def _check_fit(self, sae: Dictionary) -> None:
    reads = sae.reads
    for taps, size in (
        (reads.inputs, sae.sae.d_in),
        (reads.targets, sae.sae.d_out),
    ):
      known = sum(
          self.config.d_site(tap.site)
          for tap in taps
          if 0 <= tap.layer < self.config.layers
      )
      if known != size:
        raise errors.UserError(
            f'{sae!r} has {size} dimensions at {lm.spell(taps)}, {self.name}'
            f' has {known}'
        )

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


def _room(count: int) -> int:
  """Returns the power of two to which `count` tokens are padded."""
  return max(_LEAST_LENGTH, 1 << (count - 1).bit_length())


@functools.lru_cache(maxsize=4)
def load_lm(model: str, *, dtype: str = 'float32') -> LanguageModel:
  """Returns a language model, kept in memory for the next call.

  Args:
    model: A known name, such as gemma2_nano or gemma2_2b, or a folder.
    dtype: float32 or bfloat16.
  """
  loaded = lm.load(model, dtype=jnp.dtype(dtype))
  tokenizer = data.Tokenizer(loaded.tokenizer_path, rows=loaded.config.vocab)
  return LanguageModel(loaded, tokenizer)
