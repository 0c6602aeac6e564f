"""What an evaluation hands to the measures that are asked for by name."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jumprelu import lm
from jumprelu.evals import corpus_passes, results
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import config as settings_lib


class Context(NamedTuple):
  """An evaluation after its two passes."""

  model: lm.LanguageModel
  members: Sequence[corpus_passes.Placed]
  # A name of each member, for tables of their own.
  names: Sequence[str]
  # Of each member: equal where only the seed differs; None if unknown.
  kinds: Sequence[Any]
  # Of each member's latents, over the tokens of the first pass.
  firing_frequency: Sequence[np.ndarray]
  # Over the same tokens.
  means: Mapping[lm.Tap, np.ndarray]
  forward: corpus_passes.Forward
  # That of the losses.
  text: text_lib.Text
  settings: settings_lib.Config = settings_lib.Config()


class Measured(NamedTuple):
  """What a measure found."""

  # Of each member: columns of its row.
  columns: list[dict[str, Any]]
  # What is no single number a member, in rows of a table of its own.
  table: list[results.Row] = []
