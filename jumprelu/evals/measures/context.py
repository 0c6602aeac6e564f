"""Inputs and outputs of the optional measures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jumprelu import lm
from jumprelu.evals import corpus_passes, results
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import config as settings_lib


class Context(NamedTuple):
  """Inputs of a measure: an evaluation after its two passes."""

  model: lm.LanguageModel
  members: Sequence[corpus_passes.Placed]
  # Names of the members in the tables.
  names: Sequence[str]
  # Keys of the members, which are equal if only the seeds differ. The key of a
  # member with an unknown seed is None.
  kinds: Sequence[Any]
  # Firing frequencies [latents] of each member on the tokens of the first pass.
  firing_frequency: Sequence[np.ndarray]
  # Means of the targets over the same tokens.
  means: Mapping[lm.Tap, np.ndarray]
  # The clean forward pass.
  forward: corpus_passes.Forward
  # The text of the second pass, for losses.
  text: text_lib.Text
  settings: settings_lib.Config = settings_lib.Config()


class Measured(NamedTuple):
  """Results of a measure."""

  # Columns that are added to the row of each member.
  columns: list[dict[str, Any]]
  # Rows of a separate table, for results with several rows per member.
  table: list[results.Row] = []
