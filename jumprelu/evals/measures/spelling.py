"""Words to spell: the alphabetic pieces of a vocabulary, each in a prompt.

A prompt is what SAEBench's absorption measure reads, up to the word: other
words with their first letters, then the word, whose letter would come next:

  \\n cat has the first letter: C\\n dog has the first letter: D\\n bird

What follows the word is left out, for it cannot change the word's activation.
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
# A space before the word; a capital first letter; two or more, and all.
FORMS = ('space', 'capital', 'capitals')
# Of words, by hash; all ways to write a word lie on one side.
_TEST_PERCENT = 40
_QUESTION = ' has the first letter:'


class Words(NamedTuple):
  """Words, where they stand in rows of prompts, and how they are written."""

  words: tuple[str, ...]
  tokens: Int[np.ndarray, 'rows positions']
  rows: Int[np.ndarray, ' words']
  positions: Int[np.ndarray, ' words']
  features: tuple[str, ...]
  labels: Bool[np.ndarray, 'words features']
  test: Bool[np.ndarray, ' words']

  def only(self, some: Bool[np.ndarray, ' words']) -> 'Words':
    """Returns some of the words; the rows stay."""
    return self._replace(
        words=tuple(w for w, s in zip(self.words, some, strict=True) if s),
        rows=self.rows[some],
        positions=self.positions[some],
        labels=self.labels[some],
        test=self.test[some],
    )


def _alphabetic(tokenizer):
  """Returns the pieces of two letters or more: id -> how it is written."""
  found = {}
  for token in range(tokenizer.vocab_size):
    word = tokenizer.piece(token)
    bare = word.removeprefix(' ')
    if len(bare) > 1 and bare.isascii() and bare.isalpha():
      found[token] = bare
  return found


def _in_prompts(chosen, layout, shots, examples):
  """Returns the prompt of each word."""
  encode = layout.tokenizer.encode
  end, line = encode(_QUESTION), encode('\n')
  answers = {letter: encode(f' {letter.upper()}') for letter in LETTERS}
  prompts = []
  for token in chosen:
    # Of the word alone: its prompt does not depend on the others.
    others = [t for t in examples if t != token]
    drawn = np.random.RandomState(token).permutation(len(others))[:shots]
    prompt = [packing.BOS, *layout.prefix]
    for i in drawn:
      letter = examples[others[i]][0].lower()
      prompt += [*line, others[i], *end, *answers[letter]]
    prompts.append([*prompt, *line, token])
  return prompts


def make_words(layout: labelled.Layout, *, words: int, shots: int) -> Words:
  """Draws words of the tokenizer's vocabulary and writes their prompts.

  Raises:
    UserError: if the tokenizer has too few words, or a row has no room.
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
        f'absorption: {len(examples)} words of the vocabulary cannot give'
        f' {shots} examples; lower measure.absorption.shots'
    )
  prompts = _in_prompts(chosen, layout, shots, examples)
  longest = max(map(len, prompts))
  if longest > layout.sequence_length:
    raise errors.UserError(
        f'absorption: a prompt has {longest} tokens, a row'
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
  """Returns which features a word has."""
  bare = word.removeprefix(' ')
  forms = (word != bare, bare[0].isupper(), bare.isupper())
  return [bare[0].lower() == letter for letter in LETTERS] + list(forms)


def _pack(prompts, length):
  """Puts whole prompts into rows; returns them and where their ends are."""
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
  """Returns what the members read and write at the words, and which to keep."""
  text = text_lib.in_memory(words.tokens, context.text)
  taps = {t for m in context.members for t in (m.source, m.target)}
  # Rows hold a few words each: the first of a row has slot 0, and so on.
  starts = np.searchsorted(words.rows, words.rows)
  slot = np.arange(len(words.rows)) - starts
  places = np.zeros((len(words.tokens), slot.max() + 1), np.int32)
  places[words.rows, slot] = words.positions
  at = text_lib.beside(text, places, 0)

  @jax.jit
  def pick(values, keep, at):
    found = {
        tap: jnp.take_along_axis(x, at[..., None], 1).astype(jnp.float32)
        for tap, x in values.items()
    }
    return jitted.replicate(
        (found, jnp.take_along_axis(keep, at, 1)), text.mesh
    )

  def step(tokens):
    batch = context.forward(tokens)
    values = {tap: batch.values[tap] for tap in taps}
    return pick(values, batch.keep, next(at))

  parts = list(text_lib.over(text, step, 'evaluate: absorption'))
  index = words.rows, slot
  found = {
      tap: np.concatenate([values[tap] for values, _ in parts])[index]
      for tap in taps
  }
  return found, np.concatenate([keep for _, keep in parts])[index]
