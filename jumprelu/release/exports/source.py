"""The SAEs of an export, and the checks that several formats share."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.files import json_files, npz
from jumprelu.release import formats, layout
from jumprelu.release.formats import hooks, record


@dataclasses.dataclass(frozen=True)
class Source:
  """An SAE that is to be exported.

  Attributes:
    path: The SAE's path in its release.
    released: The SAE, with its complete origin.
    results: Its row of results; empty unless the release is our own.
    frequency: The share of held-out tokens on which each latent is active.
  """

  path: str
  released: record.Released
  results: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  frequency: np.ndarray | None = None

  @property
  def name(self) -> str:
    """A name for a folder: the path, or `sae` for the SAE of a single folder."""
    return 'sae' if self.path == '.' else self.path

  @property
  def l0(self) -> float | None:
    """The measured mean L0, from the results or the folder's name."""
    row = {**self.released.meta, **self.results}
    return row.get('l0', row.get('released_l0'))

  @property
  def transcodes(self) -> bool:
    """Whether the SAE is a transcoder."""
    return self.released.origin.site == 'transcoder'

  def refuse(self, to: str, reason: str) -> errors.UserError:
    """Returns the error that the format `to` cannot hold the SAE."""
    return errors.UserError(
        f'--to={to}: {self.path}: {reason}; leave it out with --members'
    )


def read(
    root: str | os.PathLike[str],
    *,
    members: Sequence[str] = (),
    overrides: record.Origin | None = None,
) -> list[Source]:
  """Returns the SAEs below a folder, in any format that can be read.

  Args:
    root: The folder, such as a release.
    members: Only SAEs whose path contains one of these texts; all if empty.
    overrides: The parts of the SAEs' origin that no file or folder states.

  Raises:
    MissingInputError: there is no SAE.
    DataError: a file is damaged.
    UserError: an origin is incomplete, or no path contains a text.
  """
  released = formats.complete(
      formats.select(formats.find(root), members), overrides or record.Origin()
  )
  folder = pathlib.Path(root)
  folder = folder.parent if folder.is_file() else folder
  return [
      Source(
          path,
          sae,
          json_files.read_json(folder / path / layout.RESULTS, missing_ok=True),
          _frequency(folder / path / layout.FIRING_FREQUENCY, sae.sae.width),
      )
      for path, sae in released.items()
  ]


def _frequency(path: pathlib.Path, width: int) -> np.ndarray | None:
  if not path.is_file():
    return None
  frequency = npz.read_npy(path, ndim=1, kinds='f')
  if len(frequency) != width:
    raise errors.DataError(f'{path}: has {len(frequency)} latents, not {width}')
  return frequency


def params_of(source: Source) -> record.Params:
  """Returns the SAE's arrays, as float32 and contiguous."""
  return {
      name: np.asarray(value, np.float32, order='C')
      for name, value in source.released.params.items()
  }


def as_jumprelu(source: Source, *, to: str) -> record.Params:
  """Returns the arrays of the JumpReLU SAE that equals an SAE.

  Raises:
    UserError: there is none, or other tools would compute other latents.
  """
  sae = source.released.sae
  converted = sae.to_jumprelu(
      {k: jnp.asarray(v) for k, v in source.released.params.items()}
  )
  if converted is None:
    raise source.refuse(
        to,
        f'a {sae.variant} SAE with these settings equals no JumpReLU SAE, and'
        ' the format holds no others',
    )
  params = {
      name: np.asarray(value, np.float32, order='C')
      for name, value in converted[1].items()
  }
  if (params['threshold'] < 0).any():
    raise source.refuse(
        to,
        'has negative thresholds and so negative latents, which no other tool'
        ' computes',
    )
  return params


def model_name(source: Source) -> tuple[str, list[str]]:
  """Returns the model's public name, and a warning if it has none."""
  model = str(source.released.origin.model)
  public = hooks.public_name(model)
  if public:
    return public, []
  name = pathlib.PurePath(model).name
  return name, [
      f'{name} is no released model: other tools cannot load it by this name,'
      ' but they read the arrays'
  ]


def write_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes arrays as a .safetensors file."""
  from safetensors import numpy as safetensors

  # The writer stores the memory of an array, in the order that it has there.
  ordered = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  safetensors.save_file(ordered, path, metadata={'format': 'np'})
