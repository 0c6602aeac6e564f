"""Verification of a release, which ends with an error at the first fault.

Arrays must follow the conventions of Gemma Scope. The stored test vectors are
recomputed by the formula that users apply (`recompute.py`), so that arrays that
encode differently from the trained SAE are refused.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib

import numpy as np

from jumprelu import errors
from jumprelu.files import digests as digests_lib
from jumprelu.files import folder_kinds, json_files, npz, wording
from jumprelu.release import layout, members, recompute
from jumprelu.saes import base

# Largest allowed deviation of a decoder row's norm from 1. Tools for Gemma
# Scope rely on unit norms.
UNIT_NORM_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Summary:
  """The numbers of members, latents, files and bytes of a verified release."""

  members: int
  latents: int
  files: int
  bytes: int

  def __str__(self):
    """Returns a one-line description."""
    return (
        f'{wording.count(self.members, "member")}, {self.latents:,} latents,'
        f' {self.files} files,'
        f' {self.bytes / 2**20:,.1f} MiB: verified'
    )


def verify_release(release: str | os.PathLike) -> Summary:
  """Checks all files of a release, and returns their numbers and size.

  Raises:
    MissingInputError: there is no such directory.
    DataError: a file is damaged, missing or unexpected; the message names the
      first such file and its fault.
    UserError: the folder is of another kind, such as a run.

  >>> jumprelu.verify_release('jumprelu_demo/release').members
  12
  """
  release = pathlib.Path(release)
  if not release.is_dir():
    raise errors.MissingInputError(f'{release}: no such release directory')
  folder_kinds.want_release(release)
  if not (release / layout.SUITE).is_file():
    raise errors.DataError(
        f'{release}: not a release, because it has no {layout.SUITE}'
    )
  files = _files_of(release)
  suite = members.read_suite(release)
  _check_listing(release, files, suite)
  latents = sum(
      _verify_member(release / m['path'], m) for m in suite['members']
  )
  _check_digests(release, suite['files'])
  return Summary(
      members=len(suite['members']),
      latents=latents,
      files=len(files),
      bytes=sum((release / name).stat().st_size for name in files),
  )


def _files_of(release: pathlib.Path) -> set[str]:
  """Returns the paths of all files, relative to the release.

  Raises:
    DataError: the release has a link or a special file.
  """
  paths = set()
  for folder, folders, files in os.walk(release):
    for name in folders + files:
      path = pathlib.Path(folder) / name
      if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise errors.DataError(
            f'{path}: a link or special file; replace it with a regular file'
        )
    paths |= {
        (pathlib.Path(folder) / n).relative_to(release).as_posix()
        for n in files
    }
  return paths


def unlisted_files(release: pathlib.Path, suite: Mapping) -> list[str]:
  """Returns the files of a release that its suite.json does not list."""
  return sorted(_files_of(release) - _listed_files(suite))


def _listed_files(suite: Mapping) -> set[str]:
  listed = {layout.SUITE, *suite['files']}
  for member in suite['members']:
    listed |= {f'{member["path"]}/{name}' for name in member['files']}
  return listed


def _check_listing(release: pathlib.Path, files: set[str], suite: Mapping):
  """Raises DataError unless the files are exactly those in suite.json."""
  listed = _listed_files(suite)
  for name in sorted(listed - files):
    raise errors.DataError(
        f'{release / name}: listed in suite.json, but missing'
    )
  for name in sorted(files - listed):
    raise errors.DataError(f'{release / name}: not listed in suite.json')
  for member in suite['members']:
    for name in layout.REQUIRED_FILES:
      if name not in member['files']:
        raise errors.DataError(
            f'{release / layout.SUITE}: {member["path"]} lacks {name}'
        )


def _verify_member(folder: pathlib.Path, listed: Mapping) -> int:
  """Checks a member's files and its entry in suite.json; returns the width."""
  sae, params, config = members.read_member(folder)
  results = json_files.read_json(folder / layout.RESULTS)
  try:
    expected = layout.member_folder(
        variant=config['variant'], site=config['site'],
        layer=config['layer'], width=sae.width, l0=float(results['l0']),
    )  # fmt: skip
  except (KeyError, TypeError, ValueError, OverflowError) as e:
    raise errors.DataError(
        f'{folder}: config.json or results.json lacks a value that the'
        f" folder's name contains ({e!r})"
    ) from e
  if not layout.is_folder_of(listed['path'], expected):
    raise errors.DataError(f'{folder}: should be named {expected}')
  path = folder / layout.PARAMS
  W_dec = params['W_dec']
  norms = np.sqrt(np.einsum('ij,ij->i', W_dec, W_dec, dtype=np.float64))
  # A row of zeros passes, because it cannot be scaled to unit norm.
  norms[norms == 0] = 1
  worst = int(np.argmax(np.abs(norms - 1)))
  if abs(norms[worst] - 1) > UNIT_NORM_TOLERANCE:
    raise errors.DataError(
        f'{path}: W_dec row {worst} has norm {norms[worst]:.7g}, not 1'
    )
  if 'threshold' in params:
    _check_threshold(path, params['threshold'], config)
  _check_test_vectors(folder, sae, params, config)
  _check_firing_frequency(folder, sae)
  _check_digests(folder, listed['files'])
  if config['sha256'] != listed['files'].get(layout.PARAMS):
    raise errors.DataError(
        f'{folder / layout.CONFIG}: sha256 is not that of {layout.PARAMS}'
    )
  return sae.width


def _check_threshold(path, threshold: np.ndarray, config: Mapping):
  # An SAE converted to JumpReLU, such as a ReLU SAE, may have the threshold 0.
  converted = bool(config.get('converted_from'))
  wrong = threshold < 0 if converted else threshold <= 0
  if wrong.any():
    i = int(np.argmax(wrong))
    raise errors.DataError(
        f'{path}: threshold of latent {i} is {threshold[i]:g}, must be'
        f' {">= 0" if converted else "> 0"}'
    )


def _check_test_vectors(
    folder: pathlib.Path,
    sae: base.Sae,
    params: Mapping[str, np.ndarray],
    config: Mapping,
):
  path = folder / layout.TEST_VECTORS
  rows = config['test_vectors']
  if not isinstance(rows, int) or rows < 1:
    raise errors.DataError(
        f'{folder / layout.CONFIG}: test_vectors is not a positive integer'
    )
  vectors = npz.read_npz(
      path,
      {'x': (rows, sae.d_in), 'latents': (rows, sae.width),
       'reconstruction': (rows, sae.d_out)},
  )  # fmt: skip
  for name, value in vectors.items():
    members.check_finite(path, name, value)
  latents = vectors['latents']
  wrong = recompute.wrong_latents(sae, params, vectors['x'], latents=latents)
  if wrong.any():
    row, latent = np.argwhere(wrong)[0]
    raise errors.DataError(
        f'{path}: {int(wrong.sum())} latents are not those of {layout.PARAMS},'
        f' the first in row {row}, latent {latent}'
    )
  if recompute.is_wrong_reconstruction(
      params, latents, vectors['reconstruction'], x=vectors['x']
  ):
    raise errors.DataError(
        f'{path}: reconstruction is not that of {layout.PARAMS}'
    )


def _check_firing_frequency(folder: pathlib.Path, sae: base.Sae):
  path = folder / layout.FIRING_FREQUENCY
  if not path.exists():
    return
  frequency = npz.read_npy(path, ndim=1, kinds='f')
  if (
      frequency.shape != (sae.width,)
      or not ((frequency >= 0) & (frequency <= 1)).all()
  ):
    raise errors.DataError(
        f'{path}: must hold {sae.width} shares between 0 and 1'
    )


def _check_digests(folder: pathlib.Path, digests: Mapping[str, str | None]):
  for name, digest in digests.items():
    path = folder / name
    if not path.is_file():
      raise errors.DataError(f'{path}: listed in suite.json, but missing')
    # The card has no digest, because users may edit it.
    if digest is not None and digests_lib.sha256_of(path) != digest:
      raise errors.DataError(f'{path}: does not match its sha256 in suite.json')
