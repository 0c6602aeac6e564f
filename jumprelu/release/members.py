"""The members of a release, and the schema of their config.json.

`member_config` makes a member's config.json, `read_member` checks that it has
the required fields, and `result_columns` selects the fields that are also
columns of the results.

No file of a release is trusted: names are checked before files are opened, and
headers of arrays before their data are read. `verify.py` checks the values.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jumprelu
from jumprelu import errors, lm, saes
from jumprelu.array_typing import Array, Float
from jumprelu.files import folder_kinds, formats, json_files, npz
from jumprelu.files import versions as versions_lib
from jumprelu.release import hook_names, layout
from jumprelu.saes import base

# Fields of config.json without which a member cannot be rebuilt or verified.
_REQUIRED = (
    'model', 'layer', 'site', 'variant', 'width', 'sparsity_coefficient',
    'target_l0', 'seed', 'sae', 'sha256', 'test_vectors',
)  # fmt: skip
# Fields of config.json that are also columns of the results.
_RESULT_COLUMNS = (
    'variant', 'sparsity_coefficient', 'target_l0', 'seed', 'tokens_trained',
)  # fmt: skip
# A release mentions a member's skipped steps above this share of its steps.
_NOTABLE_SKIPPED = 1e-3
_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'gemma')


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
  """One trained SAE in folded form, with its settings and results.

  Attributes:
    sae: The folded SAE, which reads raw activations, because the scales used in
      training are multiplied into its arrays.
    params: The folded SAE's arrays.
    reads: The SAE's input and target in the language model.
    sparsity_coefficient: The sparsity coefficient used in training.
    target_l0: The target L0 used in training; 0 without a target.
    seed: The seed of the initialisation.
    learning_rate: The peak learning rate.
    initial_threshold: The initial threshold, on scaled activations.
    input_scale: The number by which inputs were divided in training.
    target_scale: The number by which targets were divided in training; differs
      from `input_scale` for a transcoder only.
    tokens_trained: Number of tokens trained on, without dropped ones.
    steps: Number of optimiser steps, including skipped ones.
    results: The row of evaluation results; its `l0` is part of the folder's
      name.
    inputs: Held-out raw activations for the test vectors.
    firing_frequency: Share of held-out tokens on which each latent is active.
    converted_from: The original variant of a member that was converted to a
      JumpReLU SAE; empty for other members.
    total_steps: Number of steps that the run was to train for. The member is
      unfinished if `steps` is smaller; with the default 0 it never is.
    steps_skipped: Number of steps without an update, because the loss or the
      gradients were not finite.
    frozen: Whether training gave the member up, because it kept failing.
    training: The config of a member that was added to the run, in place of
      that of the run.
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
  frozen: bool = False
  training: Mapping[str, Any] | None = None

  @property
  def unfinished(self) -> str:
    """The step at which training stopped, as text; empty if it is finished."""
    if self.frozen:
      made = self.steps - self.steps_skipped
      return f'failed after {made} of {self.steps} steps (not finite)'
    if self.steps >= self.total_steps:
      return ''
    return f'stopped at step {self.steps} of {self.total_steps}'

  @property
  def site(self) -> str:
    """The site, a key of `lm.SITES`."""
    return self.reads.name

  @property
  def input_gain(self) -> bool | None:
    """Whether a transcoder's input includes the norm's gain.

    None for SAEs that are not transcoders.
    """
    return self.reads.stated_input_gain


@dataclasses.dataclass(frozen=True)
class Provenance:
  """The origin that all members of a suite share.

  Attributes:
    model: The language model's name.
    layers: The layers.
    training: The run's config without local paths, as JSON values.
    corpus: The description and digest of the text, as JSON values.
    tokenizer_sha256: SHA-256 of the tokenizer's file.
    run: A digest that identifies the run.
    command: The commands that train and release the suite.
    licence: The SPDX name of the licence of the released arrays.
    family: The language model's family, a key of `lm.FAMILIES`.
  """

  model: str
  layers: tuple[int, ...]
  training: Mapping[str, Any]
  corpus: Mapping[str, Any]
  tokenizer_sha256: str
  run: str
  command: str = ''
  licence: str = 'Apache-2.0'
  family: str = 'gemma2'


def member_config(
    member: Member, provenance: Provenance, *, sha256: str
) -> dict[str, Any]:
  """Returns a member's config.json; `sha256` is the digest of params.npz."""
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
      # {tap: the largest norm of the rows that the SAE was trained on}.
      'norm_limits': lm.to_json_keys(dict(member.reads.limits)),
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
      'arrays': {k: list(v.shape) for k, v in member.params.items()},
      'test_vectors': len(member.inputs),
      'training': member.training or provenance.training,
      'corpus': provenance.corpus,
      'tokenizer_sha256': provenance.tokenizer_sha256,
      'command': provenance.command,
      'versions': versions(),
      'license': provenance.licence,
      'sha256': sha256,
  }


def norm_limits(
    config: Mapping[str, Any], *, where: pathlib.Path
) -> tuple[tuple[lm.Tap, float], ...]:
  """Returns the field `norm_limits` of a config.json, which older ones lack.

  Raises:
    DataError: the field is damaged.
  """
  limits = config.get('norm_limits', {})
  try:
    parsed = lm.from_json_keys(limits)
    if all(float(x) > 0 for x in parsed.values()):
      return tuple((tap, float(x)) for tap, x in sorted(parsed.items()))
  except (AttributeError, TypeError, ValueError, OverflowError):
    pass
  raise errors.DataError(f'{where}: norm_limits is damaged: {limits!r}')


def result_columns(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a config.json that are columns of the results.

  The column `unfinished` is present only if the run stopped before its end.
  """
  columns = {name: config.get(name) for name in _RESULT_COLUMNS}
  if stop := config.get('unfinished'):
    columns['unfinished'] = str(stop)
  return columns


def result_row(member: Member) -> dict[str, Any]:
  """Returns a member's row of results, with its numbers of steps added."""
  steps: dict[str, Any] = {
      'steps': member.steps,
      'steps_skipped': member.steps_skipped,
  }
  if member.unfinished:
    steps['unfinished'] = member.unfinished
  return json_files.to_plain({**member.results, **steps})


def is_skipped_notable(skipped: int, *, steps: int) -> bool:
  """Returns whether a release must mention the number of skipped steps."""
  return skipped > _NOTABLE_SKIPPED * steps


def versions() -> dict[str, str]:
  """Returns the versions of Python and packages, without importing these."""
  return {
      'jumprelu': jumprelu.__version__,
      'python': platform.python_version(),
      **versions_lib.of_packages(_PACKAGES),
  }


def list_members(release: str | os.PathLike) -> list[str]:
  """Returns the members' folders in a release, in the order of suite.json.

  Raises the errors of `read_suite`.
  """
  return [m['path'] for m in read_suite(release)['members']]


def read_suite(release: str | os.PathLike) -> dict:
  """Returns the content of suite.json, whose paths are checked.

  Raises:
    MissingInputError: the file does not exist.
    DataError: the file is damaged, or a path in it could leave the release.
    UserError: the folder is of another kind, such as a run.
  """
  folder_kinds.want_release(release)
  path = pathlib.Path(release) / layout.SUITE
  suite = formats.migrate(
      formats.Kind.RELEASE_SUITE, json_files.read_json(path), where=str(path)
  )
  try:
    for member in suite['members']:
      layout.check_relative(member['path'])
      for name in member['files']:
        if name not in layout.MEMBER_FILES:
          raise errors.DataError(f'{path}: unexpected file {name!r}')
    for name in suite['files']:
      layout.check_relative(name)
  except (KeyError, TypeError, AttributeError) as e:
    raise errors.DataError(
        f'{path}: a field is missing or of the wrong type ({e!r})'
    ) from e
  if not suite['members']:
    raise errors.DataError(f'{path}: lists no member')
  return suite


def load_member(
    path: str | os.PathLike,
) -> tuple[base.Sae, dict[str, jax.Array], dict]:
  """Returns (sae, params, config) of a member, with the arrays on the device.

  Args:
    path: The member's folder, or its params.npz.

  Raises:
    MissingInputError: a file does not exist.
    DataError: a file is damaged; the message names it.
    UserError: the folder is of another kind, such as a whole release.
  """
  path = pathlib.Path(path)
  folder = path.parent if path.name == layout.PARAMS else path
  folder_kinds.want_member(folder)
  sae, params, config = read_member(folder)
  return sae, {k: jnp.asarray(v) for k, v in params.items()}, config


def read_member(
    folder: pathlib.Path,
) -> tuple[base.Sae, dict[str, np.ndarray], dict]:
  """Returns (sae, params, config) of the member in a folder, on the host.

  Raises:
    MissingInputError: a file does not exist.
    DataError: a file is damaged, or the arrays have non-finite values, or other
      names or shapes than the SAE in config.json; the message names the file.
  """
  if not folder.is_dir():
    raise errors.MissingInputError(f'{folder}: no such member')
  config = formats.migrate(
      formats.Kind.RELEASE_MEMBER,
      json_files.read_json(folder / layout.CONFIG),
      where=str(folder / layout.CONFIG),
  )
  missing = [k for k in _REQUIRED if k not in config]
  if missing:
    raise errors.DataError(
        f'{folder / layout.CONFIG}: lacks {", ".join(missing)}'
    )
  sae = _make_sae(
      config['sae'], variant=config['variant'], where=folder / layout.CONFIG
  )
  shapes = jax.eval_shape(
      lambda: sae.init_params(jax.random.key(0), initial_threshold=1.0)
  )
  params = npz.read_npz(
      folder / layout.PARAMS, {k: v.shape for k, v in shapes.items()}
  )
  for name, value in params.items():
    check_finite(folder / layout.PARAMS, name, value)
  return sae, params, config


def check_finite(path: pathlib.Path, name: str, value: np.ndarray) -> None:
  """Raises a DataError if an array of a file has non-finite values."""
  bad = value.size - int(np.isfinite(value).sum())
  if bad:
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
    raise errors.DataError(
        f'{path}: {name} has {bad} non-finite values, the first at {where}'
    )


def _make_sae(
    fields: Mapping[str, Any], *, variant: str, where: pathlib.Path
) -> base.Sae:
  """Returns the SAE that the field `sae` of a config.json describes.

  Args:
    fields: The content of the field.
    variant: The SAE's variant, another field of config.json.
    where: The path of config.json, for error messages.
  """
  try:
    _, make_config = saes.VARIANTS[variant]
    if min(fields['d_in'], fields['d_out'], fields['width']) < 1:
      raise ValueError('a size below 1')
    # JSON has lists where a config has tuples.
    config: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in fields['config'].items()
    }
    return saes.make_sae(
        variant,
        make_config(**config),
        d_in=int(fields['d_in']),
        d_out=int(fields['d_out']),
        width=int(fields['width']),
        transcoder=bool(fields['transcoder']),
        # Earlier releases had no skip terms.
        skip=bool(fields.get('skip', False)),
    )
  except (
      AttributeError,
      KeyError,
      OverflowError,
      TypeError,
      ValueError,
  ) as e:
    raise errors.DataError(f'{where}: describes no known SAE ({e!r})') from e
