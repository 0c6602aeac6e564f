"""Writing of a release in Gemma Scope's format.

A release holds the suite of a run, with a folder for each member. The
`params.npz` of a JumpReLU member holds the five arrays of Gemma Scope; those of
other variants hold the arrays of their variant. The folder also holds files
that Gemma Scope lacks: the config, the evaluation, the firing frequencies, and
test vectors. Test vectors are held-out activations with their latents and
reconstruction, by which users can check their own code. `verify.py` checks all
files.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.evals import results
from jumprelu.files import (
    digests,
    disk,
    durable,
    folder_kinds,
    formats,
    json_files,
    npz,
)
from jumprelu.release import card, frontier, layout, verify
from jumprelu.release import members as members_lib


def member_paths(members: Sequence[members_lib.Member]) -> list[str]:
  """Returns the folder of each member, relative to the release.

  Members with equal folder names get their target L0s, and numbers if names
  are still equal, in the order of sparsity coefficient, target L0 and seed.
  """
  folders = [
      layout.member_folder(
          variant=m.sae.variant, site=m.site, layer=m.reads.layer,
          width=m.sae.width, l0=float(m.results['l0']),
      )
      for m in members
  ]  # fmt: skip
  return layout.resolve_collisions(
      layout.with_targets(folders, [m.target_l0 for m in members]),
      [(m.sparsity_coefficient, m.target_l0, m.seed) for m in members],
  )


def write_release(
    members: Sequence[members_lib.Member],
    out: str | os.PathLike,
    *,
    provenance: members_lib.Provenance,
) -> list[dict[str, Any]]:
  """Writes a verified release; returns its rows of results, with paths.

  All files are written to a temporary folder next to `out` and verified before
  that folder is renamed to `out`. An existing `out` is replaced only if it is
  empty or a release of the same run.

  Raises:
    UserError: there are no members, or `out` may not be replaced.
    DataError: the written files do not pass verification.
  """
  out = pathlib.Path(out).resolve()
  if not members:
    raise errors.UserError(f'{out}: a release needs at least one member')
  check_target(out, run=provenance.run)
  disk.require(out.parent, _bytes(members), what=f'the release {out.name}')
  out.parent.mkdir(parents=True, exist_ok=True)
  paths = member_paths(members)
  with tempfile.TemporaryDirectory(
      prefix=f'.{out.name}.', dir=out.parent
  ) as scratch:
    new = pathlib.Path(scratch) / 'new'
    listed, rows = [], []
    for path, member in zip(paths, members, strict=True):
      row = members_lib.result_row(member) | {'path': path}
      rows.append(row)
      _write_member(new / path, member, row, provenance)
      listed.append(
          {
              'path': path,
              **{k: row.get(k) for k in ('site', 'width', 'variant', 'l0')},
              'files': _digests(new / path),
          }
      )
    _write_suite(
        new,
        listed,
        rows=rows,
        provenance=provenance,
        input_gain=next(
            (m.input_gain for m in members if m.site == 'transcoder'), None
        ),
    )
    durable.sync_tree(new)
    verify.verify_release(new)
    _replace(out, new, old=pathlib.Path(scratch) / 'old')
  return rows


def _bytes(members: Sequence[members_lib.Member]) -> int:
  """Returns the bytes of all arrays, which are most of a release."""
  return sum(
      int(np.prod(np.shape(x))) * 4
      for member in members
      for x in member.params.values()
  )


def _replace(out: pathlib.Path, new: pathlib.Path, *, old: pathlib.Path):
  """Renames `out` to `old`, if it exists, and `new` to `out`.

  If the second renaming fails, the first is undone.
  """
  if out.exists():
    out.rename(old)
  try:
    new.rename(out)
  except BaseException:
    if old.exists():
      old.rename(out)
    raise


def check_target(out: str | os.PathLike, *, run: str):
  """Refuses an existing `out` that is neither empty nor a release of this run.

  Args:
    out: The folder of the release.
    run: The digest that identifies the run.

  Raises:
    UserError: `out` is inside another release, is not a folder, or holds files
      that would be lost. The message advises the user.
    DataError: the suite.json in `out` is damaged.
  """
  out = pathlib.Path(out)
  folder_kinds.refuse_inside_release('out', out.absolute().parent)
  if not out.exists():
    return
  if not out.is_dir():
    raise errors.UserError(f'{out}: not a directory; choose another --out')
  if not any(out.iterdir()):
    return
  if not (out / layout.SUITE).is_file():
    raise errors.UserError(
        f'{out}: not empty and not a release; choose another --out'
    )
  suite = members_lib.read_suite(out)
  if suite.get('run') != run:
    raise errors.UserError(
        f'{out}: holds a release of another run; choose another --out'
    )
  extra = verify.unlisted_files(out, suite)
  if extra:
    raise errors.UserError(
        f'{out}: {extra[0]} is not part of the release and would be lost; move'
        ' it or choose another --out'
    )


def _write_member(
    folder: pathlib.Path,
    member: members_lib.Member,
    row: Mapping[str, Any],
    provenance: members_lib.Provenance,
):
  """Writes the files of one member."""
  folder.mkdir(parents=True)
  params = {k: np.asarray(v) for k, v in member.params.items()}
  npz.write_npz(folder / layout.PARAMS, params)
  # The inputs are stored with the test vectors, because users may not have the
  # language model. The precision is set because, by default, accelerators would
  # round the factors of the products.
  with jax.default_matmul_precision('float32'):
    inputs = jnp.asarray(member.inputs)
    latents = member.sae.encode(dict(member.params), inputs)
    reconstruction = member.sae.decode(dict(member.params), latents, inputs)
  npz.write_npz(
      folder / layout.TEST_VECTORS,
      {
          'x': np.asarray(member.inputs, np.float32),
          'latents': np.asarray(latents),
          'reconstruction': np.asarray(reconstruction),
      },
  )
  if member.firing_frequency is not None:
    np.save(
        folder / layout.FIRING_FREQUENCY,
        np.asarray(member.firing_frequency, np.float32),
    )
  json_files.write_json(folder / layout.RESULTS, row)
  json_files.write_json(
      folder / layout.CONFIG,
      members_lib.member_config(
          member,
          provenance,
          sha256=digests.sha256_of(folder / layout.PARAMS),
      ),
      seal=True,
  )


def _write_suite(
    new: pathlib.Path,
    listed: list[dict[str, Any]],
    *,
    rows: list[dict[str, Any]],
    provenance: members_lib.Provenance,
    input_gain: bool | None,
):
  """Writes the files of the whole release: results, plot, card, suite.json."""
  results.write(rows, new / layout.ALL_RESULTS)
  has_frontier = frontier.is_drawable(rows)
  if has_frontier:
    frontier.plot_frontier(rows, new / layout.FRONTIER)
  files = _digests(new)
  (new / layout.CARD).write_text(
      card.render(
          rows,
          model=provenance.model,
          layers=provenance.layers,
          corpus=provenance.corpus,
          command=provenance.command,
          licence=provenance.licence,
          versions=members_lib.versions(),
          input_gain=input_gain,
          has_frontier=has_frontier,
      ),
      encoding='utf-8',
  )
  json_files.write_json(
      new / layout.SUITE,
      {
          **formats.stamp(formats.Kind.RELEASE_SUITE),
          'model': provenance.model,
          **formats.layer_fields(provenance.layers),
          'run': provenance.run,
          'members': listed,
          # The card has no digest, because users may edit it.
          'files': files | {layout.CARD: None},
      },
      seal=True,
  )


def _digests(folder: pathlib.Path) -> dict[str, str]:
  """Returns the SHA-256 of each file in a folder, by name."""
  return {
      p.name: digests.sha256_of(p)
      for p in sorted(folder.iterdir())
      if p.is_file()
  }
