"""Words for the absorption measure: alphabetic vocabulary pieces in prompts.

Prompts have the form of SAEBench's absorption measure. A prompt has example
words with their first letters, and ends with the word itself:

  \\n cat has the first letter: C\\n dog has the first letter: D\\n bird

The text after the word is omitted, because it cannot change the activation at
the word.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors, lm
from jumprelu.array_typing import Bool, Float, Int
from jumprelu.data import documents, packing
from jumprelu.evals import jitted
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import context as context_lib
from jumprelu.evals.measures import labelled

LETTERS = tuple('abcdefghijklmnopqrstuvwxyz')
# A space before the word; a capital first letter; only capital letters.
FORMS = ('space', 'capital', 'capitals')
# Share of words in the test set, by a hash of the word in lower case.
_TEST_PERCENT = 40
_QUESTION = ' has the first letter:'


class Words(NamedTuple):
  """Words, their places in rows of prompts, and their features."""

  words: tuple[str, ...]
  tokens: Int[np.ndarray, 'rows positions']  # The prompts.
  # The row and position of each word in `tokens`.
  rows: Int[np.ndarray, ' words']
  positions: Int[np.ndarray, ' words']
  features: tuple[str, ...]
  labels: Bool[np.ndarray, 'words features']
  test: Bool[np.ndarray, ' words']

  def select(self, mask: Bool[np.ndarray, ' words']) -> 'Words':
    """Returns the words where `mask` is true; rows of prompts are unchanged."""
    return self._replace(
        words=tuple(w for w, m in zip(self.words, mask, strict=True) if m),
        rows=self.rows[mask],
        positions=self.positions[mask],
        labels=self.labels[mask],
        test=self.test[mask],
    )


def _alphabetic(tokenizer):
  """Returns {id: letters} of the pieces that are two or more ASCII letters."""
  pieces = {}
  for token in range(tokenizer.vocab_size):
    word = tokenizer.piece(token)
    bare = word.removeprefix(' ')
    if len(bare) > 1 and bare.isascii() and bare.isalpha():
      pieces[token] = bare
  return pieces


def _in_prompts(chosen, layout, shots, examples):
  """Returns the prompt of each word."""
  encode = layout.tokenizer.encode
  end, line = encode(_QUESTION), encode('\n')
  answers = {letter: encode(f' {letter.upper()}') for letter in LETTERS}
  prompts = []
  for token in chosen:
    # The seed is the word's id, so that each word has other examples.
    others = [t for t in examples if t != token]
    drawn = np.random.RandomState(token).permutation(len(others))[:shots]
    prompt = [packing.BOS, *layout.prefix]
    for i in drawn:
      letter = examples[others[i]][0].lower()
      prompt += [*line, others[i], *end, *answers[letter]]
    prompts.append([*prompt, *line, token])
  return prompts


def make_words(layout: labelled.Layout, *, words: int, shots: int) -> Words:
  """Returns random words of the tokenizer's vocabulary, with their prompts.

  Raises:
    UserError: if there are too few words, or a prompt is longer than a row.
  """
  known = _alphabetic(layout.tokenizer)
  tokens = sorted(known)
  order = np.random.RandomState(0).permutation(len(tokens))[:words]
  chosen = [tokens[i] for i in order]
  test = [
      documents.is_held_out(f'absorption/{known[t].lower()}', _TEST_PERCENT)
      for t in chosen
  ]
  examples = {
      t: known[t] for t, other in zip(chosen, test, strict=True) if not other
  }
  if len(examples) <= shots:
    raise errors.UserError(
        f'absorption: {len(examples)} words are too few for {shots} examples in'
        ' a prompt; lower measure.absorption.shots'
    )
  prompts = _in_prompts(chosen, layout, shots, examples)
  longest = max(map(len, prompts))
  if longest > layout.sequence_length:
    raise errors.UserError(
        f'absorption: a prompt has {longest} tokens, but a row has'
        f' {layout.sequence_length}; lower measure.absorption.shots'
    )
  packed, rows, positions = _pack(prompts, layout.sequence_length)
  spelled = tuple(layout.tokenizer.piece(t) for t in chosen)
  return Words(
      spelled,
      packed,
      rows,
      positions,
      LETTERS + FORMS,
      np.asarray([_labels(word) for word in spelled]),
      np.asarray(test),
  )


def _labels(word):
  """Returns, for each of `LETTERS + FORMS`, whether a word has it."""
  bare = word.removeprefix(' ')
  forms = (word != bare, bare[0].isupper(), bare.isupper())
  return [bare[0].lower() == letter for letter in LETTERS] + list(forms)


def _pack(prompts, length):
  """Returns rows of prompts, and the place of each prompt's last token.

  No prompt is divided between rows.
  """
  lines, rows, positions = [[]], [], []
  for prompt in prompts:
    if len(lines[-1]) + len(prompt) > length:
      lines.append([])
    lines[-1] += prompt
    rows.append(len(lines) - 1)
    positions.append(len(lines[-1]) - 1)
  packed = np.full((len(lines), length), packing.PAD, np.int32)
  for row, line in zip(packed, lines, strict=True):
    row[: len(line)] = line
  return packed, np.asarray(rows), np.asarray(positions)


def activations(
    context: context_lib.Context, words: Words
) -> tuple[
    dict[lm.Tap, Float[np.ndarray, 'words model']], Bool[np.ndarray, ' words']
]:
  """Returns activations at the words by tap, and the mask of kept words.

  The taps are the inputs and targets of all members.
  """
  text = text_lib.in_memory(words.tokens, context.text)
  taps = {t for m in context.members for t in (m.source, m.target)}
  # Each word's index among the words of its row.
  starts = np.searchsorted(words.rows, words.rows)
  slot = np.arange(len(words.rows)) - starts
  places = np.zeros((len(words.tokens), slot.max() + 1), np.int32)
  places[words.rows, slot] = words.positions
  at = text_lib.value_batches(text, places, 0)

  @jax.jit
  def pick(values, keep, at):
    picked = {
        tap: jnp.take_along_axis(x, at[..., None], 1).astype(jnp.float32)
        for tap, x in values.items()
    }
    return jitted.replicate(
        (picked, jnp.take_along_axis(keep, at, 1)), text.mesh
    )

  def step(tokens):
    batch = context.forward(tokens)
    values = {tap: batch.values[tap] for tap in taps}
    return pick(values, batch.keep, next(at))

  parts = list(text_lib.over(text, step, 'evaluate: absorption'))
  index = words.rows, slot
  by_tap = {
      tap: np.concatenate([values[tap] for values, _ in parts])[index]
      for tap in taps
  }
  return by_tap, np.concatenate([keep for _, keep in parts])[index]
