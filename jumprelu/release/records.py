"""What a release knows about its SAEs, and how config.json says it."""

from collections.abc import Mapping
import dataclasses
import platform
from typing import Any

import numpy as np

import jumprelu
from jumprelu import lm
from jumprelu.array_typing import Array, Float
from jumprelu.files import formats, json_files
from jumprelu.files import versions as versions_lib
from jumprelu.release import hook_names
from jumprelu.saes import base

# Share of skipped steps from which on a release speaks of them.
_NOTABLE_SKIPPED = 1e-3
_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'gemma')


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
  """One trained SAE, folded, with what is known about it.

  Attributes:
    sae: The folded SAE: it acts on raw activations.
    params: Its arrays.
    reads: What it reads and reconstructs.
    sparsity_coefficient: The coefficient it was trained with.
    target_l0: The L0 that was asked for, 0 if none.
    seed: The seed of its initialisation.
    learning_rate: Its peak learning rate.
    initial_threshold: Its initial threshold, in units of the scaled input.
    input_scale: C of the input, folded into `params`.
    target_scale: C of the target, folded; `input_scale` unless a transcoder.
    tokens_trained: Kept tokens it was trained on.
    steps: Optimiser steps.
    results: Its evaluation row; `l0` names the folder.
    inputs: Held-out raw activations for the test vectors.
    firing_frequency: Share of held-out tokens that fire each latent.
    converted_from: The variant it was before it became a JumpReLU, if any.
    total_steps: Steps of the whole run; 0 if it has ended.
    steps_skipped: Steps without an update, for loss or gradients were not
      finite; among `steps`.
  """

  sae: base.Sae
  params: Mapping[str, Array]
  reads: lm.Reads
  sparsity_coefficient: float
  target_l0: float
  seed: int
  learning_rate: float
  initial_threshold: float
  input_scale: float
  target_scale: float
  tokens_trained: int
  steps: int
  results: Mapping[str, Any]
  inputs: Float[np.ndarray, 'rows model']
  firing_frequency: Float[np.ndarray, ' latents'] | None = None
  converted_from: str = ''
  total_steps: int = 0
  steps_skipped: int = 0

  @property
  def unfinished(self) -> str:
    """Where its run was stopped, in words; empty if it has ended."""
    if self.steps >= self.total_steps:
      return ''
    return f'stopped at step {self.steps} of {self.total_steps}'

  @property
  def site(self) -> str:
    """Returns the name of what it reads in `lm.SITES`."""
    return self.reads.name

  @property
  def input_gain(self) -> bool | None:
    """For a transcoder, whether its input has the norm's gain."""
    return self.reads.stated_input_gain


@dataclasses.dataclass(frozen=True)
class Provenance:
  """What all members of a suite share.

  Attributes:
    model: The language model's name.
    layer: The layer.
    training: The run's full config, as JSON.
    corpus: The source's description and digest, as JSON.
    tokenizer_sha256: Of the tokenizer's file.
    run: A digest that tells this run from any other.
    command: The command that trained the suite.
    licence: An SPDX name, of the released arrays.
    family: The language model's family, a key of `lm.FAMILIES`.
  """

  model: str
  layer: int
  training: Mapping[str, Any]
  corpus: Mapping[str, Any]
  tokenizer_sha256: str
  run: str
  command: str = ''
  licence: str = 'Apache-2.0'
  family: str = 'gemma2'


def versions() -> dict[str, str]:
  """Return the versions that a release depends on, importing nothing."""
  return {
      'jumprelu': jumprelu.__version__,
      'python': platform.python_version(),
      **versions_lib.of_packages(_PACKAGES),
  }


def member_config(
    member: Member, params: Mapping[str, np.ndarray], provenance: Provenance
) -> dict[str, Any]:
  """Return config.json without digests: all that made the member."""
  sae = member.sae
  return {
      **formats.stamp(formats.Kind.RELEASE_MEMBER),
      'model': provenance.model,
      'layer': member.reads.layer,
      'site': member.site,
      'hooks': hook_names.hook_names(
          member.site,
          layer=member.reads.layer,
          input_gain=member.input_gain,
          family=provenance.family,
      ),
      'input_gain': member.input_gain,
      'variant': sae.variant,
      'width': sae.width,
      'sparsity_coefficient': member.sparsity_coefficient,
      'target_l0': member.target_l0,
      'seed': member.seed,
      'learning_rate': member.learning_rate,
      'initial_threshold': member.initial_threshold,
      'input_scale': member.input_scale,
      'target_scale': member.target_scale,
      'tokens_trained': member.tokens_trained,
      'steps': member.steps,
      'steps_skipped': member.steps_skipped,
      'unfinished': member.unfinished,
      'converted_from': member.converted_from,
      'sae': {
          'd_in': sae.d_in,
          'd_out': sae.d_out,
          'width': sae.width,
          'transcoder': sae.transcoder,
          'skip': sae.skip,
          'config': dataclasses.asdict(sae.config),
      },
      'arrays': {k: list(v.shape) for k, v in params.items()},
      'test_vectors': len(member.inputs),
      'training': provenance.training,
      'corpus': provenance.corpus,
      'tokenizer_sha256': provenance.tokenizer_sha256,
      'command': provenance.command,
      'versions': versions(),
      'license': provenance.licence,
  }


def row(member: Member) -> dict[str, Any]:
  """Returns a member's row of results, with what else readers must know."""
  known: dict[str, Any] = {
      'steps': member.steps,
      'steps_skipped': member.steps_skipped,
  }
  if member.unfinished:
    known['unfinished'] = member.unfinished
  return json_files.to_plain({**member.results, **known})


def is_skipped_notable(skipped: int, *, steps: int) -> bool:
  """Returns whether so many skipped steps of `steps` must be mentioned."""
  return skipped > _NOTABLE_SKIPPED * steps
