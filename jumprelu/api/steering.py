"""Continuations under edits, compared with the model without the edits."""

from collections.abc import Iterable, Sequence
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.api.dictionary import Dictionary
from jumprelu.api.edits import Edit
from jumprelu.api.language_model import LanguageModel
from jumprelu.api.texts import Text
from jumprelu.array_typing import Float, Int
from jumprelu.features import reading


class Steered(NamedTuple):
  """A continuation under edits.

  Attributes:
    prompt: The text of the prompt.
    continuation: The text of the new tokens.
    tokens: Their ids.
    kl: KL(unedited || edited) of the next-token distributions in nats, its
      mean over the new tokens.
    loss: The unedited model's loss on the new tokens in nats, their mean. It is
      high for incoherent text.
  """

  prompt: str
  continuation: str
  tokens: Int[np.ndarray, ' new_tokens']
  kl: float
  loss: float


def steer(
    model: LanguageModel,
    prompt: Text,
    edits: Iterable[Edit],
    *,
    tokens: int = 40,
    temperature: int | float = 0.0,
    seed: int = 0,
) -> Steered:
  """Returns a continuation under edits, and its distance to the plain model.

  Args:
    model: The language model, without edits.
    prompt: The prompt, as text or token ids.
    edits: The edits of the prompt's tokens and of the new ones.
    tokens: The number of new tokens; fewer if EOS is generated.
    temperature: 0 takes the likeliest token.
    seed: The seed of the samples.
  """
  made = model.generate(
      prompt, tokens=tokens, temperature=temperature, seed=seed, edits=edits
  )
  plain = model.logits([*made.prompt, *made.tokens])
  kl, loss = distances(
      plain[len(made.prompt) - 1 : -1], made.logits, made.tokens
  )
  decode = model.tokenizer.decode
  text = decode(made.prompt.tolist())
  # Decoded with the prompt, because the first piece's space depends on it.
  continuation = made.text.removeprefix(text)
  return Steered(text, continuation, made.tokens, kl, loss)


def distances(
    plain: Float[np.ndarray, 'tokens vocab'],
    edited: Float[np.ndarray, 'tokens vocab'],
    tokens: Int[np.ndarray, ' tokens'],
) -> tuple[float, float]:
  """Returns mean KL(plain || edited), and the plain loss on the tokens."""
  p, q = (jax.nn.log_softmax(jnp.asarray(x), -1) for x in (plain, edited))
  kl = (jnp.exp(p) * (p - q)).sum(-1).mean()
  loss = -jnp.take_along_axis(p, jnp.asarray(tokens)[:, None], -1).mean()
  return float(kl), float(loss)


def largest_activations(
    folder: str | os.PathLike[str], member: str, latents: Sequence[int]
) -> list[float]:
  """Returns the largest activations of latents, from a folder of features.

  Raises:
    MissingInputError: There is no such folder.
    UserError: It has no such member or latent, or a latent never fired.
  """
  rows = reading.read_latents(
      folder,
      member,
      latents=sorted(set(latents)),
      columns=['latent', 'largest'],
  )
  largest = {row['latent']: float(row['largest']) for row in rows}
  for latent in latents:
    if not largest[latent] > 0:
      raise errors.UserError(
          f'{folder}: latent {latent} of {member} never fired, so that it has no'
          ' largest activation; pass a unit in raw activations'
      )
  return [largest[latent] for latent in latents]


def strengths_of(
    sae: Dictionary,
    latent: int,
    strengths: Sequence[int | float],
    *,
    op: str,
    unit: int | float,
    positions: Any = None,
) -> list[tuple[int | float | None, list[Edit]]]:
  """Returns each strength with its edits; the first is None, without edits.

  Args:
    sae: The SAE.
    latent: The latent.
    strengths: Values in units of `unit`; without effect for `ablate`.
    op: The kind of the edit.
    unit: The activation of strength 1.
    positions: The tokens to edit.
  """
  options = {'op': op, 'unit': unit, 'positions': positions}
  if op == 'ablate':
    return [(None, []), (0.0, [Edit(sae, latent, **options)])]
  edits = [Edit(sae, latent, value=value, **options) for value in strengths]
  return [(None, []), *zip(strengths, [[edit] for edit in edits], strict=True)]


def keyword_rate(steered: Steered, keyword: str) -> float:
  """Returns the occurrences of a keyword per new token, in any case."""
  count = steered.continuation.lower().count(keyword.lower())
  return count / max(len(steered.tokens), 1)


def token_rate(steered: Steered, tokens: Iterable[int]) -> float:
  """Returns the share of the new tokens that are among `tokens`."""
  return float(np.isin(steered.tokens, list(tokens)).mean())
