"""Explanations of latents, and scores of how well they predict activations.

An explanation describes where a latent fires. It is made from the windows of
some documents and scored on windows of others, because a description that only
fits its own examples explains nothing. Everything is read from a folder of
features, so no SAE and no activations are needed.

A rule (`rules`) is an explanation that a program can apply: a few tokens,
n-grams, kinds of tokens, early positions or promoted tokens. Rules are fitted
and judged without a language model (`judges`). They are the baseline for the
explanations of language models.

A judge answers questions (`questions`) of four kinds:

*   detection: does the latent fire in this text?
*   fuzzing: does it fire on the marked tokens?
*   intruder: in which of five texts are the marked tokens wrong?
*   simulation: how strongly does it fire on each token?

The answers are compared with the activations (`scoring`). A language model is
reached through `llm`: its questions become prompts (`prompts`), and its answers
are kept in a file, so that no prompt is sent twice.
"""

import dataclasses

from jumprelu.files import fields

KINDS = ('detection', 'fuzzing', 'intruder', 'simulation')
# Texts of an intruder question.
CHOICES = 5
# Part of the identity of explanations. It is incremented whenever a code change
# alters a value in the files.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """The numbers of windows and questions, and the size of rules."""

  latents: int = fields.field(
      0, 'Latents of each member, drawn at random; 0 for all.'
  )
  kinds: tuple[str, ...] = fields.field(
      KINDS, f'Kinds of questions, of {", ".join(KINDS)}.'
  )
  windows: int = fields.field(
      20,
      'Windows with, and windows without activations for detection; windows'
      ' for fuzzing.',
  )
  trials: int = fields.field(10, 'Intruder questions of a latent.')
  simulated: int = fields.field(10, 'Windows of the simulation.')
  shown: int = fields.field(
      20, 'Windows that a language model sees to explain a latent.'
  )
  per_prompt: int = fields.field(
      5, 'Windows in a prompt of detection or fuzzing.'
  )
  clauses: int = fields.field(4, 'Alternatives of a rule, at most.')
  gain: float = fields.field(
      0.02, 'The increase of F1 that each further alternative must bring.'
  )
  seed: int = fields.field(0, 'Seed of all random draws.')

  def __post_init__(self):
    fields.check_counts(
        self,
        'explain',
        'windows',
        'trials',
        'simulated',
        'shown',
        'per_prompt',
        'clauses',
    )
    for name in ('latents', 'seed'):
      value = getattr(self, name)
      fields.require(f'explain.{name}', value, value >= 0, 'at least 0')
    known = len(self.kinds) > 0 and set(self.kinds) <= set(KINDS)
    rule = f'some of {", ".join(KINDS)}'
    fields.require('explain.kinds', self.kinds, known, rule)
    fields.require('explain.gain', self.gain, 0 <= self.gain < 1, 'from 0 to 1')
